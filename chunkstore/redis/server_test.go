package redis

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gantry/internal/testenv"
)

// server is a Redis of the test's own, to be stopped, killed and started again.
type server struct {
	t    testing.TB
	args []string
	addr string
	cmd  *exec.Cmd
}

// startServer starts a Redis that keeps its data when it is killed.
func startServer(t testing.TB, args ...string) *server {
	t.Helper()
	binary, err := exec.LookPath("redis-server")
	testenv.Need(t, err == nil, "redis-server is not installed: scripts/services install")
	port := freePort(t)
	s := &server{t: t, addr: fmt.Sprintf("127.0.0.1:%d", port)}
	s.args = append([]string{
		binary, "--bind", "127.0.0.1", "--port", fmt.Sprint(port), "--dir", t.TempDir(), "--appendonly", "yes",
		"--save", "", "--repl-diskless-sync-delay", "0", "--logfile", "log",
	}, args...)
	s.start()
	t.Cleanup(func() {
		s.signal(syscall.SIGCONT)
		s.kill()
	})
	return s
}

// freePort is one below those that the system gives to outgoing connections.
func freePort(t testing.TB) int {
	t.Helper()
	for range 100 {
		port := 21000 + rand.IntN(9000)
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			_ = l.Close()
			return port
		}
	}
	t.Fatal("no free port")
	return 0
}

func (s *server) url() string { return "redis://" + s.addr }

func (s *server) start() {
	s.t.Helper()
	s.cmd = exec.Command(s.args[0], s.args[1:]...)
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // with the children that write its files for a replica
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	eventually(s.t, "the server answers", func() bool { return s.say("PING") == "+PONG" })
}

// say sends one command without arguments that need quotes, and returns the first line of the answer.
func (s *server) say(command string) string {
	c, err := net.DialTimeout("tcp", s.addr, time.Second)
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	fmt.Fprintf(c, "%s\r\n", command)
	line, _ := bufio.NewReader(c).ReadString('\n')
	return strings.TrimSpace(line)
}

// replicates makes the server a replica.
func (s *server) replicates(master string) {
	s.t.Helper()
	host, port, _ := net.SplitHostPort(master)
	if got := s.say("REPLICAOF " + host + " " + port); got != "+OK" {
		s.t.Fatal(got)
	}
}

func (s *server) signal(sig syscall.Signal) { _ = syscall.Kill(-s.cmd.Process.Pid, sig) }

// kill is kill -9.
func (s *server) kill() {
	s.signal(syscall.SIGKILL)
	_ = s.cmd.Wait()
}

// loses deletes what the server had on its disk.
func (s *server) loses() {
	for i, arg := range s.args {
		if arg == "--dir" {
			_ = os.RemoveAll(filepath.Join(s.args[i+1], "appendonlydir"))
		}
	}
}

func eventually(t testing.TB, what string, happens func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if happens() {
			return
		}
	}
	t.Fatalf("it did not happen that %s", what)
}

// proxy is between a node and a server. It can be told to hold back what the node sends, and to let it go
// later, as a network or a stopped server does.
type proxy struct {
	net.Listener
	to string
	wg sync.WaitGroup

	mu     sync.Mutex
	links  []*link
	writes int  // how often something came from the node: round trips, as it waits for each answer
	closed bool // nothing new gets through
}

type link struct {
	client, server net.Conn
	held           bool
	waiting        []byte
}

func startProxy(t testing.TB, to string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", freePort(t)))
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{Listener: l, to: to}
	p.wg.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			p.link(client)
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		p.mu.Lock()
		for _, one := range p.links {
			_, _ = one.client.Close(), one.server.Close()
		}
		p.mu.Unlock()
		p.wg.Wait()
	})
	return p
}

func (p *proxy) url() string { return "redis://" + p.Addr().String() }

func (p *proxy) link(client net.Conn) {
	server, err := net.Dial("tcp", p.to)
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil || p.closed {
		_ = client.Close()
		return
	}
	one := &link{client: client, server: server}
	p.links = append(p.links, one)
	p.wg.Go(func() { _, _ = io.Copy(client, server) })
	p.wg.Go(func() {
		buf := make([]byte, 64<<10)
		for {
			n, err := client.Read(buf)
			p.mu.Lock()
			if n > 0 {
				p.writes++
				if one.waiting = append(one.waiting, buf[:n]...); !one.held {
					_, _ = server.Write(one.waiting)
					one.waiting = nil
				}
			}
			if err != nil && !one.held {
				_ = server.Close()
			}
			p.mu.Unlock()
			if err != nil {
				return
			}
		}
	})
}

// hold keeps back what is sent on the connections there are; with all, new ones are refused.
func (p *proxy) hold(all bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = all
	for _, one := range p.links {
		one.held = true
	}
}

// release sends what was held back.
func (p *proxy) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = false
	for _, one := range p.links {
		if one.held = false; len(one.waiting) > 0 {
			_, _ = one.server.Write(one.waiting)
			one.waiting = nil
		}
	}
}

func (p *proxy) connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.links)
}

func (p *proxy) trips() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.writes
}

// cut ends all connections and refuses new ones.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, one := range p.links {
		_, _ = one.client.Close(), one.server.Close()
	}
}

// sentinel names one master, as Sentinel does.
type sentinel struct {
	net.Listener
	mu     sync.Mutex
	master string
}

func startSentinel(t testing.TB, master string) *sentinel {
	t.Helper()
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", freePort(t)))
	if err != nil {
		t.Fatal(err)
	}
	s := &sentinel{Listener: l, master: master}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { s.answer(c) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		wg.Wait()
	})
	return s
}

func (s *sentinel) is(master string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.master = master
}

func (s *sentinel) answer(c net.Conn) {
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	in := bufio.NewReader(c)
	for range 7 { // *3 $8 SENTINEL $23 get-master-addr-by-name $6 gantry
		if _, err := in.ReadString('\n'); err != nil {
			return
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	host, port, _ := net.SplitHostPort(s.master)
	fmt.Fprintf(c, "*2\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n", len(host), host, len(port), port)
}
