package check

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"

	"gantry/internal/testenv"
)

// load reads compose.yaml, validated by the schema of the Compose specification.
func load(t *testing.T) *types.Project {
	t.Helper()
	options, err := cli.NewProjectOptions([]string{"../compose.yaml"}, cli.WithName("gantry"))
	if err != nil {
		t.Fatal(err)
	}
	project, err := options.LoadProject(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return project
}

func TestCompose(t *testing.T) {
	project := load(t)
	for name, s := range project.Services {
		if s.HealthCheck == nil && s.Build == nil && name != "balancer" {
			t.Errorf("%s has no health check", name)
		}
		for _, v := range s.Volumes {
			if v.Type == types.VolumeTypeBind {
				if _, err := os.Stat(v.Source); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
		}
		if s.Build != nil && time.Duration(*s.StopGracePeriod) <= 30*time.Second {
			t.Errorf("%s is killed after %s, before requests are done", name, *s.StopGracePeriod)
		}
	}
}

// TestComposeAsProcesses runs the services of compose.yaml as processes of this machine, with the commands and the
// environment that they have there: each has a loopback address of its own in place of its name, directories in place of volumes,
// and scripts/services runs MariaDB, Redis and RabbitMQ. A file goes up and comes back through the balancer.
func TestComposeAsProcesses(t *testing.T) {
	nginx, err := exec.LookPath("nginx")
	if err != nil {
		nginx = "/usr/sbin/nginx"
		_, err = os.Stat(nginx)
	}
	testenv.Need(t, err == nil, "nginx is not here (apt-get install nginx-light)")
	stack := newStack(t)
	for _, name := range []string{"node1", "node2", "transfer1", "transfer2"} {
		stack.start(name, stack.gantry, stack.project.Services[name].Command...)
		stack.healthy(name)
	}
	conf := filepath.Join(stack.dir, "nginx.conf")
	stack.write(conf, stack.translate("balancer", string(read(t, "../nginx.conf"))))
	if out, err := exec.Command(nginx, "-t", "-c", conf).CombinedOutput(); err != nil {
		t.Fatalf("nginx -t: %v\n%s", err, out)
	}
	stack.start("balancer", nginx, "-c", conf, "-g", "daemon off;")
	balancer := "http://" + stack.addresses["balancer"] + ":8080"
	eventually(t, "the balancer answers", func() bool {
		resp, err := http.Get(balancer + "/")
		if err == nil {
			resp.Body.Close()
		}
		return err == nil
	})

	body := make([]byte, 40<<20)
	_, _ = rand.Read(body)
	sent, back := filepath.Join(stack.dir, "sent"), filepath.Join(stack.dir, "back")
	stack.write(sent, string(body))
	gantry := func(args ...string) string {
		t.Helper()
		cmd := exec.Command(stack.gantry, args...)
		cmd.Env = append(os.Environ(), "GANTRY_SERVER="+balancer, "GANTRY_TOKEN_FILE="+filepath.Join(stack.secrets, "token"), "XDG_STATE_HOME="+stack.dir)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("gantry %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	gantry("put", "-q", "--chunk-size", "1MiB", sent)
	gantry("get", "-q", "sent", back)
	if !bytes.Equal(read(t, back), body) {
		t.Error("other bytes came back")
	}
	eventually(t, "the file is in the store", func() bool { return strings.Contains(gantry("stat", "--json", "sent"), `"location":"store"`) })
	if out := gantry("nodes", "list", "--management", stack.addresses["node1"]+":8081"); strings.Count(out, "alive") != 2 {
		t.Errorf("nodes:\n%s", out)
	}
	var served int
	for _, node := range []string{"node1", "node2"} {
		resp, err := http.Get("http://" + stack.addresses[node] + ":8081/metrics")
		if err != nil {
			t.Fatal(err)
		}
		var text bytes.Buffer
		_, _ = text.ReadFrom(resp.Body)
		resp.Body.Close()
		if regexp.MustCompile(`http_server_request_duration_seconds_count\{code="204",method="PUT"`).Match(text.Bytes()) {
			served++
		}
	}
	if served != 2 {
		t.Errorf("chunks went to %d of 2 nodes", served)
	}
}

// stack is the compose file's services as processes.
type stack struct {
	t         *testing.T
	project   *types.Project
	dir       string
	secrets   string
	gantry    string
	addresses map[string]string // by service
}

func newStack(t *testing.T) *stack {
	t.Helper()
	s := &stack{t: t, project: load(t), dir: t.TempDir(), addresses: map[string]string{}}
	s.gantry, s.secrets = filepath.Join(s.dir, "gantry"), filepath.Join(s.dir, "secrets")
	build := exec.Command("go", "build", "-o", s.gantry, "./cmd/gantry")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if out, err := exec.Command("../secrets.sh", s.secrets).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for i, name := range []string{"node1", "transfer1", "node2", "transfer2", "balancer"} {
		s.addresses[name] = fmt.Sprintf("127.0.7.%d", i+1)
		ln, err := net.Listen("tcp", s.addresses[name]+":0")
		testenv.Need(t, err == nil, "this machine has no loopback addresses but 127.0.0.1")
		ln.Close()
	}
	settings := string(read(t, filepath.Join(s.secrets, "gantry.yaml")))
	for setting, url := range map[string]string{
		"database": testenv.Database(t, testenv.MySQL, testenv.Address(t, testenv.MySQL)),
		"redis":    testenv.Address(t, testenv.Redis),
		"queue":    testenv.Address(t, testenv.RabbitMQ),
	} {
		settings = regexp.MustCompile(`(?m)^`+setting+`: .*$`).ReplaceAllLiteralString(settings, setting+": "+url)
	}
	s.write(filepath.Join(s.secrets, "gantry.yaml"), settings)
	return s
}

func (s *stack) write(path, text string) {
	s.t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// translate makes what a service says of its container true of this machine.
func (s *stack) translate(service, text string) string {
	for name, address := range s.addresses {
		text = regexp.MustCompile(`\b`+name+`:`).ReplaceAllString(text, address+":")
	}
	text = strings.NewReplacer("0.0.0.0", s.addresses[service], "127.0.0.1", s.addresses[service]).Replace(text)
	text = regexp.MustCompile(`listen (\d+);`).ReplaceAllString(text, "listen "+s.addresses[service]+":$1;")
	text = strings.ReplaceAll(text, "/tmp/", s.dir+"/")
	for name := range s.project.Secrets {
		text = strings.ReplaceAll(text, "/run/secrets/"+name, filepath.Join(s.secrets, name))
	}
	for _, v := range s.project.Services[service].Volumes {
		if v.Type == types.VolumeTypeVolume && (text == v.Target || strings.HasPrefix(text, v.Target+"/")) {
			text = filepath.Join(s.dir, v.Source) + strings.TrimPrefix(text, v.Target)
		}
	}
	return text
}

// environment is what a service has in its container: nothing of this machine's but what it says.
func (s *stack) environment(service string) []string {
	env := []string{"PATH=" + os.Getenv("PATH")}
	for name, value := range s.project.Services[service].Environment {
		env = append(env, name+"="+s.translate(service, *value))
	}
	for _, setting := range []string{"GANTRY_MANAGEMENT=127.0.0.1:8081", "GANTRY_TRANSFER_MANAGEMENT=127.0.0.1:8082"} { // each container has a loopback of its own
		env = append(env, s.translate(service, setting))
	}
	return env
}

func (s *stack) start(service, program string, args ...string) {
	s.t.Helper()
	var log bytes.Buffer
	var mu sync.Mutex
	cmd := exec.Command(program, args...)
	cmd.Env = s.environment(service)
	cmd.Stdout = writer(func(p []byte) { mu.Lock(); defer mu.Unlock(); log.Write(p) })
	cmd.Stderr = cmd.Stdout
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		done := make(chan struct{})
		go func() { _ = cmd.Wait(); close(done) }()
		select {
		case <-done:
		case <-time.After(30 * time.Second):
			_ = cmd.Process.Kill()
			s.t.Errorf("%s does not end", service)
		}
		if s.t.Failed() {
			mu.Lock()
			defer mu.Unlock()
			s.t.Logf("log of %s:\n%s", service, log.Bytes())
		}
	})
}

type writer func(p []byte)

func (w writer) Write(p []byte) (int, error) { w(p); return len(p), nil }

// healthy runs a service's health check until it says so.
func (s *stack) healthy(service string) {
	s.t.Helper()
	test := []string{"CMD", "/gantry", "health"} // the image's
	if h := s.project.Services[service].HealthCheck; h != nil {
		test = h.Test
	}
	args := make([]string, 0, len(test))
	for _, arg := range test[2:] {
		args = append(args, s.translate(service, arg))
	}
	eventually(s.t, service+" is healthy", func() bool {
		ctx, cancel := context.WithTimeout(s.t.Context(), 10*time.Second)
		defer cancel()
		cmd := exec.CommandContext(ctx, s.gantry, args...)
		cmd.Env = s.environment(service)
		return cmd.Run() == nil
	})
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(60 * time.Second); !ok(); time.Sleep(200 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not so after a minute: %s", what)
		}
	}
}
