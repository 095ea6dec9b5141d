package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

var binary string // built by TestMain

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "gantry-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "gantry")
	build := exec.Command("go", "build", "-o", binary, "gantry/cmd/gantry")
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "cannot build the binary:", err)
		return 1
	}
	return m.Run()
}

// process is a gantry command that goes on until it is stopped, and that can be started again.
type process struct {
	t       testing.TB
	program string
	args    []string
	env     []string // beside the test's own
	ready   string   // begins the line that says that it is
	said    func(line string)

	mu   sync.Mutex
	cmd  *exec.Cmd
	done chan struct{}
	log  bytes.Buffer
}

func newProcess(t testing.TB, ready string, args ...string) *process {
	t.Helper()
	p := &process{t: t, program: binary, args: args, ready: ready, said: func(string) {}}
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("log of gantry %s:\n%s", p.args[0], p.logTail())
		}
	})
	return p
}

func (p *process) logTail() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	text := p.log.String()
	return text[max(0, len(text)-4000):]
}

// Write is for what the process says.
func (p *process) Write(text []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.Write(text)
}

// start runs the command and returns when it says that it is ready.
func (p *process) start() {
	p.t.Helper()
	cmd := exec.Command(p.program, p.args...)
	cmd.Env = append(os.Environ(), p.env...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	cmd.Stderr = p
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	ready, done := make(chan bool, 1), make(chan struct{})
	go func() {
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			fmt.Fprintln(p, lines.Text())
			p.said(lines.Text())
			if strings.HasPrefix(lines.Text(), p.ready) {
				ready <- true
			}
		}
		_ = cmd.Wait()
		close(ready)
		close(done)
	}()
	select {
	case ok := <-ready:
		if !ok {
			p.t.Fatalf("gantry %s did not start:\n%s", p.args[0], p.logTail())
		}
	case <-time.After(30 * time.Second):
		p.t.Fatalf("gantry %s was not ready after 30 s:\n%s", p.args[0], p.logTail())
	}
	p.mu.Lock()
	p.cmd, p.done = cmd, done
	p.mu.Unlock()
}

// kill is kill -9; it returns when the process is gone.
func (p *process) kill() { p.end(syscall.SIGKILL) }

// stop asks the process to end.
func (p *process) stop() { p.end(syscall.SIGTERM) }

func (p *process) end(sig os.Signal) {
	p.mu.Lock()
	cmd, done := p.cmd, p.done
	p.cmd = nil
	p.mu.Unlock()
	if cmd != nil {
		_ = cmd.Process.Signal(sig)
		<-done
	}
}

// waitEnd waits until the process ends by itself, and has said why.
func (p *process) waitEnd(words string) {
	p.t.Helper()
	p.mu.Lock()
	done := p.done
	p.mu.Unlock()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		p.t.Fatalf("gantry %s goes on", p.args[0])
	}
	if text := p.logTail(); !strings.Contains(text, words) {
		p.t.Errorf("gantry %s does not say %q: %s", p.args[0], words, text)
	}
}

// signal sends a signal that does not end the process.
func (p *process) signal(sig os.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.t.Error(err)
	}
}

// server is one data directory and the process that serves it, if one runs.
type server struct {
	*process
	data string
	addr string // the same after every restart
	http *http.Client
}

// newServer returns a server on the set-up of this run.
func newServer(t testing.TB, args ...string) *server {
	t.Helper()
	s := newBareServer(t, args...)
	s.env = environment(t)
	return s
}

func newBareServer(t testing.TB, args ...string) *server {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	ln.Close()
	data := t.TempDir()
	args = append([]string{"serve", "--listen", addr, "--management", "127.0.0.1:0", "--data", data, "--min-free", "1MiB"}, args...)
	s := &server{
		process: newProcess(t, "listening on http://", args...), data: data, addr: addr,
		http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}, Timeout: time.Minute},
	}
	t.Cleanup(s.http.CloseIdleConnections)
	return s
}

// errDown is returned by do when the server could not be reached or died while answering.
var errDown = errors.New("the server is down")

type answer struct {
	status int
	header http.Header
	body   []byte
}

func (a answer) decode(t testing.TB, v any) {
	t.Helper()
	if err := json.Unmarshal(a.body, v); err != nil {
		t.Fatalf("the answer is not JSON: %v: %s", err, a.body)
	}
}

func (s *server) do(ctx context.Context, method, path string, header map[string]string, body []byte) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+s.addr+path, bytes.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	for k, v := range header {
		req.Header.Set(k, v)
	}
	resp, err := s.http.Do(req)
	if err != nil {
		return answer{}, fmt.Errorf("%w: %w", errDown, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return answer{}, fmt.Errorf("%w: %w", errDown, err)
	}
	return answer{resp.StatusCode, resp.Header, text}, nil
}

// doctor runs `gantry doctor --deep` on the data directory, which no server may be using, and fails
// the test if it finds anything.
func (s *server) doctor() {
	s.t.Helper()
	cmd := exec.Command(binary, "doctor", "--deep", "--data", s.data)
	cmd.Env = append(os.Environ(), s.env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		s.t.Errorf("gantry doctor: %v\n%s", err, out)
	}
}
