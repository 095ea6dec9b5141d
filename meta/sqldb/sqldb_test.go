package sqldb

import (
	"path/filepath"
	"testing"

	"gantry/meta/metatest"
)

func openTest(t testing.TB) *DB {
	t.Helper()
	return openAt(t, filepath.Join(t.TempDir(), "gantry.db"), Options{})
}

func openAt(t testing.TB, path string, opt Options) *DB {
	t.Helper()
	db, err := OpenSQLite(t.Context(), path, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

func TestContract(t *testing.T) {
	each(t, append([]kindOfDatabase{onSQLite}, servers...), func(t *testing.T, k kindOfDatabase) {
		metatest.Run(t, k.nodes(t))
	})
}
