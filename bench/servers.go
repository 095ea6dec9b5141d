package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// server is a running server with a directory of its own.
type server struct {
	name       string
	addr       string // of its API
	management string // Gantry only
	dir        string
	cmd        *exec.Cmd
	log        strings.Builder
}

// start runs a server in a new directory and waits until it takes connections.
func (b *bench) start(ctx context.Context, name string, args ...string) (*server, error) {
	dir, err := os.MkdirTemp(b.dir, name+"-")
	if err != nil {
		return nil, err
	}
	return b.startIn(ctx, name, dir, args...)
}

func (b *bench) startIn(ctx context.Context, name, dir string, args ...string) (*server, error) {
	s := &server{name: name, dir: dir}
	var err error
	if s.addr, err = freeAddress(ctx); err != nil {
		return nil, err
	}
	if s.management, err = freeAddress(ctx); err != nil {
		return nil, err
	}
	_, port, _ := net.SplitHostPort(s.addr)
	switch name {
	case "gantry":
		args = append([]string{"serve", "--listen", s.addr, "--management", s.management, "--data", dir, "--min-free", "64MiB", "--log-level", "warn"}, args...)
		if b.clustered {
			args = append(args, "--cluster-address", "http://"+s.addr)
		}
		s.cmd = exec.CommandContext(ctx, b.gantry, args...)
		s.cmd.Env = append(os.Environ(), b.env...)
	case "tusd":
		s.cmd = exec.CommandContext(ctx, b.tusd, "-host", "127.0.0.1", "-port", port, "-upload-dir", dir, "-base-path", "/files/",
			"-show-greeting=false", "-show-startup-logs=false", "-verbose=false", "-expose-metrics=false")
	case "nginx":
		if err := writeNginxConfig(dir, s.addr); err != nil {
			return nil, err
		}
		s.cmd = exec.CommandContext(ctx, b.nginx, "-p", dir, "-c", filepath.Join(dir, "nginx.conf"), "-e", filepath.Join(dir, "error.log"))
	default:
		return nil, fmt.Errorf("there is no server %q", name)
	}
	s.cmd.Stdout, s.cmd.Stderr = &s.log, &s.log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	for begun := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		c, err := net.Dial("tcp", s.addr) //nolint:noctx // loopback, answers at once
		if err == nil {
			return s, c.Close()
		}
		if time.Since(begun) > 20*time.Second {
			return nil, errors.Join(fmt.Errorf("%s does not start: %s", name, s.log.String()), s.stop())
		}
	}
}

func writeNginxConfig(dir, addr string) error {
	for _, sub := range []string{"files", "tmp"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil {
			return err
		}
	}
	user := ""
	if os.Getuid() == 0 {
		user = "user root;"
	}
	return os.WriteFile(filepath.Join(dir, "nginx.conf"), fmt.Appendf(nil, `%s
worker_processes 2;
daemon off;
pid %s/nginx.pid;
events { worker_connections 1024; }
http {
	access_log off;
	client_max_body_size 0;
	client_body_buffer_size 512k;
	client_body_temp_path %s/tmp;
	keepalive_requests 1000000;
	server {
		listen %s backlog=1024;
		root %s/files;
		location / { dav_methods PUT; }
	}
}
`, user, dir, dir, addr, dir), 0o600)
}

func freeAddress(ctx context.Context) (string, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// halt ends the process and keeps its directory.
func (s *server) halt() error {
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	kill := time.AfterFunc(30*time.Second, func() { _ = s.cmd.Process.Kill() })
	defer kill.Stop()
	_ = s.cmd.Wait() // how it ended does not matter: it was told to
	return nil
}

// stop ends the process and removes its directory.
func (s *server) stop() error { return errors.Join(s.halt(), os.RemoveAll(s.dir)) }

// processes are the server's process ids: itself and its children.
func (s *server) processes() []string {
	pid := strconv.Itoa(s.cmd.Process.Pid)
	children, _ := os.ReadFile("/proc/" + pid + "/task/" + pid + "/children")
	return append([]string{pid}, strings.Fields(string(children))...)
}

// cpu is the processor time that the server has used, in steps of 10 ms.
func (s *server) cpu() time.Duration {
	var ticks int64
	for _, pid := range s.processes() {
		stat, err := os.ReadFile("/proc/" + pid + "/stat")
		if err != nil {
			continue
		}
		// The fields after the name, which is in parentheses: utime and stime are the 14th and 15th of all.
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		for _, field := range fields[11:13] {
			n, _ := strconv.ParseInt(field, 10, 64)
			ticks += n
		}
	}
	return time.Duration(ticks) * (time.Second / 100)
}

// memory is a line of /proc/PID/status in bytes, added up over the server's processes.
func (s *server) memory(line string) int64 {
	var sum int64
	for _, pid := range s.processes() {
		status, err := os.ReadFile("/proc/" + pid + "/status")
		if err != nil {
			continue
		}
		for l := range strings.Lines(string(status)) {
			if rest, ok := strings.CutPrefix(l, line+":"); ok {
				kb, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
				sum += kb << 10
			}
		}
	}
	return sum
}

func (s *server) peak() int64 { return s.memory("VmHWM") }

// cpuModel is what the processor calls itself.
func cpuModel() string {
	text, _ := os.ReadFile("/proc/cpuinfo")
	for l := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(l, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown processor"
}

// fileSystem names the file system of a directory.
func fileSystem(dir string) string {
	var st syscall.Statfs_t
	if syscall.Statfs(dir, &st) != nil {
		return "unknown"
	}
	switch st.Type {
	case 0x01021994:
		return "tmpfs"
	case 0xef53:
		return "ext4"
	case 0x58465342:
		return "xfs"
	case 0x9123683e:
		return "btrfs"
	}
	return fmt.Sprintf("file system %#x", st.Type)
}
