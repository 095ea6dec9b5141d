package main

import (
	"bytes"
	"context"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gantry/config"
	"gantry/internal/testenv"
)

// newServerDatabase makes an empty database on a PostgreSQL server and returns its URL.
func newServerDatabase(t *testing.T) config.Secret {
	t.Helper()
	return config.Secret(testenv.Database(t, testenv.Postgres, testenv.Address(t, testenv.Postgres)))
}

// A data directory goes with one database on a server for ever: to any other its bytes would be garbage.
func TestDirectoryBelongsToItsDatabase(t *testing.T) {
	t.Parallel()
	first, second := newServerDatabase(t), newServerDatabase(t)
	open := func(data string, database config.Secret) error {
		c := config.Default()
		c.Data, c.Database = data, database
		n, err := openNode(context.WithoutCancel(t.Context()), &c, nil, slog.New(slog.DiscardHandler))
		if err != nil {
			return err
		}
		return n.close()
	}
	refused := func(what, data string, database config.Secret, why string) {
		t.Helper()
		if err := open(data, database); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v", what, err)
		}
	}
	data := t.TempDir()
	for range 2 {
		if err := open(data, first); err != nil {
			t.Fatal(err)
		}
	}
	refused("another database", data, second, "belongs to another database")
	if err := os.WriteFile(filepath.Join(data, "staging", "node-x.data"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	refused("no server", data, "", "restore")
	if err := os.Remove(filepath.Join(data, databaseMark)); err != nil {
		t.Fatal(err)
	}
	refused("bytes without a mark", data, first, "restore")
	own := t.TempDir()
	if err := open(own, ""); err != nil {
		t.Fatal(err)
	}
	refused("a database of its own", own, first, "of its own")
}

func TestCommandsOnAServersDatabase(t *testing.T) {
	t.Parallel()
	database, data := newServerDatabase(t), t.TempDir()
	environ := []string{"GANTRY_DATABASE=" + string(database), "GANTRY_DATA=" + data, "GANTRY_MANAGEMENT=http://127.0.0.1:1"}
	gantry := func(want int, args ...string) string {
		t.Helper()
		var out bytes.Buffer
		if code := run(t.Context(), args, environ, nil, &out, &out); code != want {
			t.Fatalf("%v: exit code %d, want %d: %s", args, code, want, &out)
		}
		return out.String()
	}
	for range 2 {
		if out := gantry(exitOK, "migrate-db"); !strings.Contains(out, "up to date") {
			t.Error(out)
		}
	}
	gantry(exitSome, "doctor") // the directory has nothing that could be checked
	c := config.Default()
	c.Data, c.Database = data, database
	n, err := openNode(context.WithoutCancel(t.Context()), &c, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := n.close(); err != nil {
		t.Fatal(err)
	}
	if out := gantry(exitOK, "doctor"); !strings.Contains(out, "no problems found") {
		t.Error(out)
	}
	secret, _ := url.Parse(string(database))
	password, _ := secret.User.Password()
	for _, out := range []string{gantry(exitSome, "doctor", "--database", string(database)+"&sslmode=nonsense"), gantry(exitOK, "doctor", "--help"), gantry(exitOK, "serve", "--help")} {
		if strings.Contains(out, password) {
			t.Errorf("the password is told: %s", out)
		}
	}
}
