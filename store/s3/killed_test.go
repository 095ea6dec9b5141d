package s3

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"

	"gantry/store"
	"gantry/store/storetest"
)

// childVariable has the task of the process that is killed, as JSON.
const childVariable = "GANTRY_S3_CHILD"

type task struct {
	Options
	Size       int
	Key        string
	Checkpoint string // the file
	Parts      int64  // after which it waits to be killed
}

func TestMain(m *testing.M) {
	if v := os.Getenv(childVariable); v != "" {
		var t task
		if err := errors.Join(json.Unmarshal([]byte(v), &t), child(t)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// child puts, and when some parts are there it says so and does nothing more.
func child(t task) error {
	var done atomic.Int64
	t.Client = &wire{meddle: func(what string, r *http.Request) (*http.Response, error) {
		if what == "part" && done.Load() >= t.Parts {
			<-r.Context().Done()
		}
		resp, err := pass(r)
		if what == "part" && err == nil && done.Add(1) == t.Parts {
			fmt.Println("sent")
		}
		return resp, err
	}}
	s, err := New(t.Options)
	if err != nil {
		return err
	}
	return s.Put(context.Background(), t.Key, bytes.NewReader(storetest.Bytes(20, t.Size)), store.PutOptions{Checkpoint: fileCheckpoint(t.Checkpoint)})
}

// fileCheckpoint is a Checkpoint that outlives its process.
type fileCheckpoint string

func (f fileCheckpoint) Load() []byte {
	state, _ := os.ReadFile(string(f))
	return state
}

func (f fileCheckpoint) Save(_ context.Context, state []byte) error {
	return os.WriteFile(string(f), state, 0o600)
}

// A Put whose process is killed is gone on with by the next process, which sends only what is not there.
func TestKilledPut(t *testing.T) {
	const parts, size = 6, 9*minPart + 1
	job := task{Options: gateway(t), Size: size, Key: "00/a", Checkpoint: filepath.Join(t.TempDir(), "checkpoint"), Parts: parts}
	encoded, err := json.Marshal(job)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env, cmd.Stderr = append(os.Environ(), childVariable+"="+string(encoded)), os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Errorf("the process said nothing: %v", err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()

	w := &wire{}
	job.Client = w
	s, data := open(t, job.Options), storetest.Bytes(20, size)
	none(t, s, job.Key)
	if err := s.Put(t.Context(), job.Key, bytes.NewReader(data), store.PutOptions{Checkpoint: fileCheckpoint(job.Checkpoint)}); err != nil {
		t.Fatal(err)
	}
	if sent := len(w.all("part")); sent > 10-parts {
		t.Errorf("%d of 10 parts were sent, %d were there", sent, parts)
	}
	if err := s.Verify(t.Context(), job.Key, storetest.DigestsOf(data)); err != nil {
		t.Error(err)
	}
	noUploads(t, s)
}
