package testenv

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Servers are servers of one test's own, which it may kill.
type Servers struct {
	t      testing.TB
	script string
	dir    string
}

// serverOf is the kind of a server by the name that scripts/services has for it.
var serverOf = map[string]Server{
	"mysql": MySQL, "mysql-replica": MySQLReplica, "postgres": Postgres, "redis": Redis, "redis-cluster": RedisCluster, "rabbitmq": RabbitMQ, "ceph": Ceph, "s3": S3,
}

// Private starts servers for one test, by the names that scripts/services knows, and stops them when it
// ends.
func Private(t testing.TB, names ...string) *Servers {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		t.Fatalf("where is the module? %v", err)
	}
	dir, err := os.MkdirTemp("", "gantry-servers-")
	if err == nil {
		err = os.Chmod(dir, 0o755) // a server that refuses to run as root runs as another user
	}
	if err != nil {
		t.Fatal(err)
	}
	s := &Servers{t: t, script: filepath.Join(strings.TrimSpace(string(out)), "scripts", "services"), dir: dir}
	t.Cleanup(func() {
		if out, err := s.command("down").CombinedOutput(); err != nil {
			t.Errorf("the servers did not stop: %v\n%s", err, out)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	out, err = s.command(append([]string{"up"}, names...)...).CombinedOutput()
	for _, name := range names {
		note(t, serverOf[name], err == nil)
	}
	if err != nil {
		Need(t, false, "servers do not start: "+string(out))
	}
	return s
}

// command is not bound to the test's context: it also runs when the test ends.
func (s *Servers) command(args ...string) *exec.Cmd {
	cmd := exec.Command(s.script, args...) //nolint:gosec,noctx // it outlives the test's context, and the arguments are the tests' own
	// Two installations of MariaDB that share a temporary directory get in each other's way.
	cmd.Env = append(os.Environ(), "GANTRY_SERVICES_DIR="+s.dir, "TMPDIR="+s.dir)
	return cmd
}

// Address is where a server is, as that of the servers that all tests share.
func (s *Servers) Address(server Server) string {
	s.t.Helper()
	out, err := s.command("env").Output()
	if err != nil {
		s.t.Fatal(err)
	}
	if m := regexp.MustCompile(`(?m)^export ` + string(server) + `='(.*)'$`).FindSubmatch(out); m != nil {
		return string(bytes.TrimSpace(m[1]))
	}
	s.t.Fatalf("%s is not there", server)
	return ""
}

// Do does to a server what scripts/services can do: kill, start, stop (it answers nothing), cont.
func (s *Servers) Do(verb, name string) {
	s.t.Helper()
	if out, err := s.command(verb, name).CombinedOutput(); err != nil {
		s.t.Fatalf("%s %s: %v\n%s", verb, name, err, out)
	}
}
