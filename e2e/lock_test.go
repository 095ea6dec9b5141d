package e2e

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestTwoProcesses: a data directory that one process has is refused to all others, which say so. Two
// on one directory would overwrite each other's journals.
func TestTwoProcesses(t *testing.T) {
	s := newServer(t)
	s.start()
	refused := func(args ...string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second) // a server that did start
		defer cancel()
		cmd := exec.CommandContext(ctx, binary, args...)
		cmd.Env = append(os.Environ(), s.env...)
		out, err := cmd.CombinedOutput()
		if err == nil || ctx.Err() != nil || !strings.Contains(string(out), "in use by process") {
			t.Errorf("gantry %s on a directory that is in use: %v: %s", args[0], err, out)
		}
	}
	refused("serve", "--listen", "127.0.0.1:0", "--management", "127.0.0.1:0", "--data", s.data)
	refused("doctor", "--data", s.data)
	s.kill()
	s.start() // the lock of a process that was killed is nobody's
	s.stop()
	s.doctor()
}
