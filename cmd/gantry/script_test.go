package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"gantry": main})
}

// The scripts run the real program, each against a server of its own.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("XDG_STATE_HOME", filepath.Join(env.WorkDir, ".state"))
			env.Values["node"] = &node1{}
			// A fixed address, so that a server can be started again, or later than its clients.
			for _, name := range []string{"GANTRY_SERVER", "GANTRY_MANAGEMENT"} {
				l, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					return err
				}
				env.Setenv(name, "http://"+l.Addr().String())
				if err := l.Close(); err != nil {
					return err
				}
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"server":     cmdServer,
			"random":     cmdRandom,
			"exits":      cmdExits,
			"eventually": cmdEventually,
			"interrupt":  cmdInterrupt,
			"wait-chunk": cmdWaitChunk,
		},
	})
}

// node1 is the server of a script.
type node1 struct {
	cmd    *exec.Cmd
	exited chan error
	stderr bytes.Buffer
}

// command prepares a program with the script's environment and directory.
func command(ts *testscript.TestScript, args ...string) *exec.Cmd {
	path := args[0]
	for _, dir := range filepath.SplitList(ts.Getenv("PATH")) {
		if p := filepath.Join(dir, args[0]); filepath.IsAbs(p) {
			if info, err := os.Stat(p); err == nil && !info.IsDir() {
				path = p
				break
			}
		}
	}
	cmd := exec.Command(path, args[1:]...)
	cmd.Dir = ts.MkAbs(".")
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "XDG_STATE_HOME", "GANTRY_SERVER", "GANTRY_MANAGEMENT", "GANTRY_TOKEN"} {
		cmd.Env = append(cmd.Env, name+"="+ts.Getenv(name))
	}
	return cmd
}

// server start [flags…] · server stop · server kill
func cmdServer(ts *testscript.TestScript, _ bool, args []string) {
	n := ts.Value("node").(*node1)
	switch args[0] {
	case "start":
		n.start(ts, args[1:])
	case "stop":
		n.end(ts, syscall.SIGTERM)
	case "kill":
		n.end(ts, syscall.SIGKILL)
	}
}

func (n *node1) start(ts *testscript.TestScript, flags []string) {
	address := func(name string) string { return strings.TrimPrefix(ts.Getenv(name), "http://") }
	n.cmd = command(ts, append([]string{
		"gantry", "serve", "--data", "data", "--min-free", "1MiB", "--log-level", "warn",
		"--listen", address("GANTRY_SERVER"), "--management", address("GANTRY_MANAGEMENT"),
	}, flags...)...)
	n.cmd.Stderr = &n.stderr
	stdout, err := n.cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(n.cmd.Start())
	n.exited = make(chan error, 1)
	ready := make(chan bool, 1)
	go func() {
		lines := bufio.NewScanner(stdout)
		for lines.Scan() {
			if strings.HasPrefix(lines.Text(), "listening on ") {
				ready <- true
			}
		}
		n.exited <- n.cmd.Wait()
		close(ready)
	}()
	ts.Defer(func() { n.end(ts, syscall.SIGKILL) })
	if !<-ready {
		ts.Fatalf("the server did not start: %s", n.stderr.String())
	}
}

func (n *node1) end(ts *testscript.TestScript, sig syscall.Signal) {
	if n.cmd == nil {
		return
	}
	_ = n.cmd.Process.Signal(sig)
	err := <-n.exited
	n.cmd = nil
	if sig == syscall.SIGTERM && err != nil {
		ts.Fatalf("the server stopped with %v: %s", err, n.stderr.String())
	}
	if text := n.stderr.String(); text != "" {
		ts.Logf("server: %s", text)
	}
}

// random FILE SIZE SEED writes bytes that look like nothing else.
func cmdRandom(ts *testscript.TestScript, _ bool, args []string) {
	size, err := humanize.ParseBytes(args[1])
	ts.Check(err)
	f, err := os.Create(ts.MkAbs(args[0]))
	ts.Check(err)
	_, err = io.CopyN(f, rand.NewChaCha8([32]byte([]byte(strings.Repeat(args[2], 32)[:32]))), int64(size))
	ts.Check(errors.Join(err, f.Close()))
}

func exitStatus(err error) int {
	if err == nil {
		return 0
	}
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		return e.ExitCode()
	}
	return -1
}

// exits CODE COMMAND… checks the exit code; stdout and stderr can be looked at afterwards.
func cmdExits(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	if code := exitStatus(ts.Exec(args[1], args[2:]...)); code != want {
		ts.Fatalf("exit code %d, want %d", code, want)
	}
}

const patience = 20 * time.Second

// eventually TEXT COMMAND… repeats a command until its output has the text.
func cmdEventually(ts *testscript.TestScript, _ bool, args []string) {
	deadline := time.Now().Add(patience)
	for {
		out, err := command(ts, args[1:]...).CombinedOutput()
		if err == nil && strings.Contains(string(out), args[0]) {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("never: %s; last: %s (%v)", args[0], out, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func chunksReceived(ts *testscript.TestScript) int {
	resp, err := http.Get(ts.Getenv("GANTRY_SERVER") + "/v1/uploads")
	if err != nil {
		return 0
	}
	defer func() { _ = resp.Body.Close() }()
	var list struct {
		Items []struct {
			Received int `json:"received_chunks"`
		} `json:"items"`
	}
	if json.NewDecoder(resp.Body).Decode(&list) != nil || len(list.Items) == 0 {
		return 0
	}
	return list.Items[0].Received
}

// wait-chunk N waits until the server has N chunks of its only upload.
func cmdWaitChunk(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	until(ts, func() bool { return chunksReceived(ts) >= want })
}

func until(ts *testscript.TestScript, done func() bool) {
	for deadline := time.Now().Add(patience); !done(); {
		if time.Now().After(deadline) {
			ts.Fatalf("waited in vain")
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// interrupt CHUNKS|FILE COMMAND… sends SIGINT when the server has so many chunks, or FILE is there. The
// command has to end with code 130; what it printed is in the file "interrupted".
func cmdInterrupt(ts *testscript.TestScript, _ bool, args []string) {
	cmd := command(ts, args[1:]...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	ts.Check(cmd.Start())
	if n, err := strconv.Atoi(args[0]); err == nil {
		until(ts, func() bool { return chunksReceived(ts) >= n })
	} else {
		until(ts, func() bool { _, err := os.Stat(ts.MkAbs(args[0])); return err == nil })
	}
	ts.Check(cmd.Process.Signal(os.Interrupt))
	if code := exitStatus(cmd.Wait()); code != exitInterrupted {
		ts.Fatalf("exit code %d, want %d: %s", code, exitInterrupted, out.String())
	}
	ts.Check(os.WriteFile(ts.MkAbs("interrupted"), out.Bytes(), 0o600))
}
