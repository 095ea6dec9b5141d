package testenv_test

import (
	"runtime"
	"testing"

	"gantry/internal/testenv"
)

// recorder is a testing.TB that notes how the test ended instead of ending it.
type recorder struct {
	testing.TB
	ended string
}

func (r *recorder) Helper()               {}
func (r *recorder) Fatalf(string, ...any) { r.ended = "failed"; runtime.Goexit() }
func (r *recorder) Skipf(string, ...any)  { r.ended = "skipped"; runtime.Goexit() }

func TestNeed(t *testing.T) {
	for _, c := range []struct {
		ci    string
		there bool
		want  string
	}{
		{"true", true, "ran"}, {"", true, "ran"}, {"true", false, "failed"}, {"", false, "skipped"},
	} {
		t.Setenv("CI", c.ci)
		r := &recorder{TB: t}
		done := make(chan struct{})
		go func() {
			defer close(done)
			testenv.Need(r, c.there, "the moon")
			r.ended = "ran"
		}()
		<-done
		if r.ended != c.want {
			t.Errorf("CI=%q, there %v: %s, want %s", c.ci, c.there, r.ended, c.want)
		}
	}
}
