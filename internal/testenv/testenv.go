// Package testenv says how tests deal with what is not there. A test never skips itself: it calls this
// package, which is loud on a developer's machine and fails in CI, so that nothing goes untested unseen.
package testenv

import (
	"os"
	"testing"
)

// Need skips the test unless there is what it needs; with CI=true it fails instead. what names the
// thing and how to get it.
func Need(t testing.TB, there bool, what string) {
	t.Helper()
	if there {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("not tested: %s", what)
	}
	t.Skipf("NOT TESTED: %s", what)
}
