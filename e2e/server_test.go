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

// server is one data directory and the process that serves it, if one runs.
type server struct {
	t    testing.TB
	data string
	addr string // the same after every restart
	args []string
	http *http.Client

	mu   sync.Mutex
	cmd  *exec.Cmd
	done chan struct{}
	log  bytes.Buffer
}

func newServer(t testing.TB, args ...string) *server {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	ln.Close()
	s := &server{
		t: t, data: t.TempDir(), addr: addr, args: args,
		http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}, Timeout: time.Minute},
	}
	t.Cleanup(func() {
		s.kill()
		s.http.CloseIdleConnections()
		if t.Failed() {
			t.Logf("server log:\n%s", s.logTail())
		}
	})
	return s
}

func (s *server) logTail() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := s.log.String()
	return text[max(0, len(text)-4000):]
}

// start runs the binary and returns when it says that it listens.
func (s *server) start() {
	s.t.Helper()
	args := append([]string{"serve", "--listen", s.addr, "--management", "127.0.0.1:0", "--data", s.data, "--min-free", "1MiB"}, s.args...)
	cmd := exec.Command(binary, args...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	cmd.Stderr = lockedWriter{s}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	ready, done := make(chan bool, 1), make(chan struct{})
	go func() {
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			fmt.Fprintln(lockedWriter{s}, lines.Text())
			if strings.HasPrefix(lines.Text(), "listening on http://") {
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
			s.t.Fatalf("the server did not start:\n%s", s.logTail())
		}
	case <-time.After(30 * time.Second):
		s.t.Fatalf("the server was not ready after 30 s:\n%s", s.logTail())
	}
	s.mu.Lock()
	s.cmd, s.done = cmd, done
	s.mu.Unlock()
}

// kill is kill -9; it returns when the process is gone.
func (s *server) kill() { s.signal(syscall.SIGKILL) }

// stop asks the server to end.
func (s *server) stop() { s.signal(syscall.SIGTERM) }

func (s *server) signal(sig os.Signal) {
	s.mu.Lock()
	cmd, done := s.cmd, s.done
	s.cmd = nil
	s.mu.Unlock()
	if cmd != nil {
		_ = cmd.Process.Signal(sig)
		<-done
	}
}

type lockedWriter struct{ s *server }

func (w lockedWriter) Write(p []byte) (int, error) {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	return w.s.log.Write(p)
}

// errDown is returned by do when the server could not be reached or died while answering.
var errDown = errors.New("the server is down")

type answer struct {
	status int
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
	return answer{resp.StatusCode, text}, nil
}

// doctor runs `gantry doctor --deep` on the data directory, which no server may be using, and fails
// the test if it finds anything.
func (s *server) doctor() {
	s.t.Helper()
	out, err := exec.Command(binary, "doctor", "--deep", "--data", s.data).CombinedOutput()
	if err != nil {
		s.t.Errorf("gantry doctor: %v\n%s", err, out)
	}
}
