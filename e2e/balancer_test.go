package e2e

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// balancer gives every new connection to the next node that takes it. It knows nothing of HTTP.
type balancer struct {
	addr string
	next atomic.Int64
	dir  string
}

func newBalancer(t *testing.T, f *fleet) *balancer {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	b := &balancer{addr: ln.Addr().String(), dir: t.TempDir()}
	go func() {
		for {
			client, err := ln.Accept()
			if err != nil {
				return
			}
			go b.serve(client, f)
		}
	}()
	return b
}

func (b *balancer) serve(client net.Conn, f *fleet) {
	defer client.Close()
	for range f.nodes {
		node, err := net.Dial("tcp", f.nodes[int(b.next.Add(1))%len(f.nodes)].addr)
		if err != nil {
			continue
		}
		defer node.Close()
		go func() {
			_, _ = io.Copy(node, client)
			_ = node.(*net.TCPConn).CloseWrite()
		}()
		_, _ = io.Copy(client, node)
		return
	}
}

// put uploads with the command-line client and compares what comes back.
func (b *balancer) put(t *testing.T, body []byte) error {
	dir, err := os.MkdirTemp(b.dir, "")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "file")
	if err := os.WriteFile(path, body, 0o600); err != nil {
		return err
	}
	env := append(os.Environ(), "GANTRY_SERVER=http://"+b.addr, "XDG_STATE_HOME="+dir, "HOME="+dir)
	run := func(args ...string) ([]byte, error) {
		cmd := exec.CommandContext(t.Context(), binary, args...)
		cmd.Env = env
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			return nil, fmt.Errorf("gantry %s: %w: %s", args[0], err, stderr.Bytes())
		}
		return out, nil
	}
	out, err := run("put", "--quiet", path)
	if err != nil {
		return err
	}
	id, _, _ := strings.Cut(string(out), " ")
	if _, err := run("get", "--quiet", id, path+".back"); err != nil {
		return err
	}
	back, err := os.ReadFile(path + ".back")
	if err != nil {
		return err
	}
	if !bytes.Equal(back, body) {
		return fmt.Errorf("other bytes came back (%d of %d)", len(back), len(body))
	}
	return nil
}
