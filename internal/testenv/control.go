package testenv

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Control does something to a server that scripts/services runs: kill (-9), stop (SIGSTOP), cont or start.
// Whoever stops or kills one lets it go on again. Tests of other packages use the server meanwhile, and
// are written to bear that.
func Control(t testing.TB, what string, s Server) {
	t.Helper()
	dir, err := os.Getwd() // of the package under test
	if err != nil {
		t.Fatal(err)
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			break
		}
		if dir == filepath.Dir(dir) {
			t.Fatal("there is no go.mod above the tests")
		}
	}
	name := strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(string(s), "GANTRY_TEST_")), "_", "-")
	// Not the test's context: a server must go on also after the test has failed.
	if out, err := exec.Command(filepath.Join(dir, "scripts", "services"), what, name).CombinedOutput(); err != nil { //nolint:gosec,noctx // arguments are the tests' own
		t.Fatalf("scripts/services %s %s: %v\n%s", what, name, err, out)
	}
}
