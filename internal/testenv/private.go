package testenv

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Private is a server that one test has for itself, so that it may kill it.
type Private struct {
	Address string

	t      testing.TB
	script string
	dir    string
	name   string
}

// StartPrivate starts a server of this kind with scripts/services, until the end of the test. It is for
// tests that harm it; all others share the one of Address, without which they do not run, nor these.
func StartPrivate(t testing.TB, s Server) *Private {
	t.Helper()
	Address(t, s)
	p := &Private{
		t: t, script: filepath.Join(moduleRoot(t), "scripts", "services"), dir: filepath.Join(t.TempDir(), "services"),
		name: strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(string(s), "GANTRY_TEST_")), "_", "-"),
	}
	t.Cleanup(func() { p.run("down") })
	variable := regexp.MustCompile(`(?m)^export ` + string(s) + `='(.*)'$`).FindStringSubmatch(p.run("up", p.name))
	if variable == nil {
		t.Fatalf("scripts/services up %s does not say where it is", p.name)
	}
	p.Address = variable[1]
	return p
}

// Do is one of what scripts/services can do to a server: kill (-9), stop (SIGSTOP), cont, start.
func (p *Private) Do(what string) {
	p.t.Helper()
	p.run(what, p.name)
}

func (p *Private) run(args ...string) string {
	p.t.Helper()
	cmd := exec.Command(p.script, args...) //nolint:gosec,noctx // the arguments are the tests' own, and it has to be stopped in any case
	cmd.Env = append(os.Environ(), "GANTRY_SERVICES_DIR="+p.dir)
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		p.t.Fatalf("scripts/services %v: %v\n%s", args, err, said.String())
	}
	return string(out)
}

// moduleRoot is the directory of go.mod above the package under test.
func moduleRoot(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for dir != filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		dir = filepath.Dir(dir)
	}
	t.Fatal("there is no go.mod above the tests")
	return ""
}
