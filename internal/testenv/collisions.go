package testenv

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Collisions returns the known pairs of files with one SHA-1, "shattered" (equal beyond their first
// 320 bytes) and "sha-mbles", from the test data of the module sha1cd.
func Collisions(t testing.TB) map[string][2][]byte {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/pjbgf/sha1cd").Output()
	if err != nil {
		t.Fatalf("where is sha1cd? %v", err)
	}
	dir := filepath.Join(strings.TrimSpace(string(out)), "test", "testdata", "files")
	read := func(name string) []byte {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	return map[string][2][]byte{
		"shattered": {read("shattered-1.pdf"), read("shattered-2.pdf")},
		"sha-mbles": {read("sha-mbles-1.bin"), read("sha-mbles-2.bin")},
	}
}
