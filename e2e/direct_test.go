package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// putDirect is a "gantry put --direct", whose state is kept for the next one.
func (s *storeServer) putDirect(state, path string, more ...string) *exec.Cmd {
	cmd := exec.Command(s.program, append([]string{"put", "--direct", "--json", "--chunk-size", "5MiB", path}, more...)...)
	cmd.Env = append(os.Environ(), "GANTRY_SERVER=http://"+s.addr, "XDG_STATE_HOME="+state)
	return cmd
}

// done is what put tells of a file at its end.
type done struct {
	Event        string `json:"event"`
	ID           string `json:"id"`
	Instant      bool   `json:"instant"`
	BytesSent    int64  `json:"bytes_sent"`
	BytesResumed int64  `json:"bytes_resumed"`
}

func fileDone(t *testing.T, out []byte, err error) done {
	t.Helper()
	if err != nil {
		t.Fatalf("gantry put: %v\n%s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		var d done
		if json.Unmarshal([]byte(line), &d) == nil && d.Event == "file_done" {
			return d
		}
	}
	t.Fatalf("gantry put does not say that it is done:\n%s", out)
	return done{}
}

// metric reads one of the server's counters.
func (s *storeServer) metric(name string) (value float64) {
	s.t.Helper()
	resp, err := http.Get(s.admin() + "/metrics")
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			if _, err := fmt.Sscan(rest, &value); err != nil {
				s.t.Fatal(err)
			}
			return value
		}
	}
	s.t.Fatalf("there is no metric %s", name)
	return 0
}

// TestDirectUpload sends a large file past the node, into each kind of store that can. Client and server are killed -9 on the way;
// the next put goes on. No byte of it passes the node, it comes back equal, and once it was read it is what the same
// content becomes.
func TestDirectUpload(t *testing.T) {
	seeded(t)
	for _, kind := range []string{"s3", "oss", "cos"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			rnd := rand.New(rand.NewPCG(*seed, 3))
			s := newStoreServer(t, "main", map[string]storeSettings{"main": kindsOfStores[kind](t)})
			s.env = append(s.env, "GANTRY_DIRECT_UPLOAD=true")
			s.start()
			const size = 300_000_000
			path, state := sourceFile(t, rnd, size), t.TempDir()

			first := s.putDirect(state, path, "--bwlimit", "100MiB")
			var said strings.Builder
			first.Stdout, first.Stderr = &said, &said
			if err := first.Start(); err != nil {
				t.Fatal(err)
			}
			killed := false
			awaitFor(t, time.Minute, "a part of the file is there", func() bool {
				var list struct{ Items []struct{ ID string } }
				a, err := s.do(t.Context(), "GET", "/v1/uploads", nil, nil)
				if err != nil {
					return false
				}
				if a.decode(t, &list); len(list.Items) == 0 {
					return false
				}
				var status struct {
					Received int64           `json:"received_bytes"`
					Direct   json.RawMessage `json:"direct"`
				}
				if a, err = s.do(t.Context(), "GET", "/v1/uploads/"+list.Items[0].ID, nil, nil); err != nil {
					return false
				}
				if a.decode(t, &status); status.Direct == nil {
					t.Fatalf("not a direct upload: %s", a.body)
				}
				if status.Received > size/10 && !killed { // the server is not needed while chunks are sent
					s.kill()
					s.start()
					killed = true
				}
				return status.Received > size/3
			})
			if err := first.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			if err := first.Wait(); err == nil {
				t.Fatalf("it was not killed:\n%s", said.String())
			}
			out, err := s.putDirect(state, path).Output()
			put := fileDone(t, out, err)
			if put.BytesResumed < size/3 || put.BytesResumed+put.BytesSent != size || put.Instant {
				t.Errorf("%+v", put)
			}
			if got := s.metric("gantry_received_bytes_total"); got != 0 {
				t.Errorf("%v bytes have passed the node", got)
			}
			if got := s.metric("gantry_direct_bytes_total"); got != size {
				t.Errorf("%v bytes were sent past the node", got)
			}
			if staged, err := filepath.Glob(filepath.Join(s.data, "staging", "*.data")); err != nil || len(staged) > 0 {
				t.Errorf("in staging: %v %v", staged, err)
			}
			stored := func(id string) func() bool {
				return func() bool {
					f, up := s.look(id)
					return up && f.Transfer.State == "stored"
				}
			}
			awaitFor(t, 2*time.Minute, "it is read", stored(put.ID))
			back := filepath.Join(t.TempDir(), "back")
			if out, err := s.gantry("get", "--quiet", put.ID, back); err != nil {
				t.Fatalf("gantry get: %v\n%s", err, out)
			}
			if out, err := exec.Command("cmp", path, back).CombinedOutput(); err != nil {
				t.Errorf("another content came back: %v %s", err, out)
			}

			// Its digests are known now: the same content is instant, and sent all the same it becomes one with it.
			out, err = s.putDirect(state, path, "--name", "instant").Output()
			if again := fileDone(t, out, err); !again.Instant || again.BytesSent > size/2 {
				t.Errorf("the same content again: %+v", again)
			}
			out, err = exec.Command(s.program, "put", "--json", "--no-instant", "--server", "http://"+s.addr, "--name", "sent", path).Output()
			sent := fileDone(t, out, err)
			etag := func(id string) string {
				a, err := s.do(t.Context(), "HEAD", "/v1/files/"+id+"/content", nil, nil)
				if err != nil {
					t.Fatal(err)
				}
				return a.header.Get("ETag")
			}
			awaitFor(t, time.Minute, "it becomes one with what is there", func() bool { return etag(sent.ID) == etag(put.ID) })
			s.stop()
			if out, err := s.gantry("doctor", "--deep"); err != nil {
				t.Errorf("gantry doctor: %v\n%s", err, out)
			}
		})
	}
}
