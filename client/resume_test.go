package client

import (
	"bytes"
	"context"
	"crypto/sha1"
	"encoding"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gantry/upload"
)

// interrupt uploads path until chunks of it are acknowledged, then goes away as Ctrl-C does.
func interrupt(t *testing.T, f *fake, states StateStore, path string, chunks int64) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var acked int64
	c := f.client(func(o *Options) { o.States, o.Parallel = states, 1 })
	_, err := c.Upload(ctx, open(t, path), UploadOptions{Events: func(e Event) {
		if e.Kind == Acknowledged {
			if acked += e.Bytes; acked >= chunks*mib {
				cancel()
			}
		}
	}})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("the interrupted upload ended with %v", err)
	}
}

func TestResumeSendsOnlyWhatIsMissing(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	states := NewFileStates(t.TempDir())
	want := content(2, 6*mib)
	path := fileWith(t, want)
	interrupt(t, f, states, path, 2)
	sent := f.count("chunk")
	var events record
	result, err := f.client(func(o *Options) { o.States = states }).Upload(t.Context(), open(t, path), UploadOptions{Events: events.add})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(f.only().content, want) {
		t.Error("other bytes arrived")
	}
	if result.BytesResumed < 2*mib || result.BytesResumed+result.BytesSent != 6*mib || events.sum(Resumed) != result.BytesResumed {
		t.Errorf("result %+v", result)
	}
	if again := f.count("chunk") - sent; int64(again)*mib != result.BytesSent {
		t.Errorf("%d chunks were sent for %d bytes", again, result.BytesSent)
	}
	if f.count("uploads POST") != 1 {
		t.Error("a second upload was begun")
	}
	if entries, err := os.ReadDir(states.dir); err != nil || len(entries) != 0 {
		t.Errorf("a finished upload is still remembered: %v, %v", entries, err)
	}
}

func TestResumeBeginsAnewWhenItMust(t *testing.T) {
	t.Parallel()
	old := content(2, 6*mib)
	changes := map[string]func(t *testing.T, f *fake, states *FileStates, path string){
		"unknown": func(_ *testing.T, f *fake, _ *FileStates, _ string) { clear(f.uploads) },
		"gone": func(_ *testing.T, f *fake, _ *FileStates, _ string) {
			for _, u := range f.uploads {
				u.state = upload.Expired
			}
		},
		"changed with the time": func(t *testing.T, _ *fake, _ *FileStates, path string) {
			if err := os.Chtimes(path, time.Time{}, time.Now().Add(time.Hour)); err != nil {
				t.Error(err)
			}
		},
		"changed without the time": func(t *testing.T, _ *fake, states *FileStates, path string) {
			rememberHash(t, states, old[:2*mib]) // of the chunks that are on the server
			info, _ := os.Stat(path)
			if err := os.WriteFile(path, content(99, 6*mib), 0o600); err != nil {
				t.Error(err)
			}
			if err := os.Chtimes(path, info.ModTime(), info.ModTime()); err != nil {
				t.Error(err)
			}
		},
		"chunk conflict": func(_ *testing.T, f *fake, _ *FileStates, _ string) {
			f.fault = func(w http.ResponseWriter, _ *http.Request, kind string, _ int) bool {
				if kind == "chunk" {
					f.heal()
					refuse(w, 409, upload.ChunkConflict, nil)
					return true
				}
				return false
			}
		},
	}
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFake(t)
			states := NewFileStates(t.TempDir())
			path := fileWith(t, old)
			interrupt(t, f, states, path, 2)
			f.mu.Lock()
			change(t, f, states, path)
			f.mu.Unlock()
			c := f.client(func(o *Options) { o.States, o.Parallel = states, 1 })
			result, err := c.Upload(t.Context(), open(t, path), UploadOptions{})
			if err != nil {
				t.Fatal(err)
			}
			now, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(f.only().content, now) || result.BytesSent != 6*mib || result.BytesResumed != 0 {
				t.Errorf("result %+v", result)
			}
		})
	}
}

// rememberHash makes the remembered upload one whose beginning has been hashed.
func rememberHash(t *testing.T, states *FileStates, head []byte) {
	t.Helper()
	entries, err := os.ReadDir(states.dir)
	if err != nil || len(entries) != 1 {
		t.Fatalf("%d states, %v", len(entries), err)
	}
	id := strings.TrimSuffix(entries[0].Name(), ".json")
	state, err := states.Load(id)
	if err != nil || state == nil {
		t.Fatalf("no state, %v", err)
	}
	sum := sha1.New()
	_, _ = sum.Write(head)
	state.SHA1, state.Hashed = upload.SHA1{}, int64(len(head))
	if state.SHA1Hash, err = sum.(encoding.BinaryMarshaler).MarshalBinary(); err != nil {
		t.Fatal(err)
	}
	if err := states.Save(id, state); err != nil {
		t.Fatal(err)
	}
}

// The answer to complete was lost with the process: the same command finds the file.
func TestResumeOfACompleteUpload(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	states := NewFileStates(t.TempDir())
	path := fileWith(t, content(2, 3*mib))
	ctx, cancel := context.WithCancel(t.Context())
	f.fault = func(w http.ResponseWriter, r *http.Request, kind string, n int) bool {
		if kind != "complete" {
			return false
		}
		f.serve(discard{}, r, kind)
		cancel()
		panic(http.ErrAbortHandler)
	}
	if _, err := f.client(func(o *Options) { o.States = states }).Upload(ctx, open(t, path), UploadOptions{}); err == nil {
		t.Fatal("not interrupted")
	}
	f.heal()
	result, err := f.client(func(o *Options) { o.States = states }).Upload(t.Context(), open(t, path), UploadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if result.File.ID != f.only().ID || result.BytesSent != 0 || result.BytesResumed != 3*mib {
		t.Errorf("result %+v", result)
	}
}

type discard struct{}

func (discard) Header() http.Header         { return http.Header{} }
func (discard) Write(p []byte) (int, error) { return len(p), nil }
func (discard) WriteHeader(int)             {}

// A process that dies between init and its answer does not leave a second upload behind.
func TestInitIsRepeatedUnderTheSameKey(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	states := NewFileStates(t.TempDir())
	path := fileWith(t, content(2, 3*mib))
	f.fault = func(_ http.ResponseWriter, r *http.Request, kind string, _ int) bool {
		f.serve(discard{}, r, kind)
		panic(http.ErrAbortHandler)
	}
	c := f.client(func(o *Options) { o.States, o.RetryFor = states, -1 })
	if _, err := c.Upload(t.Context(), open(t, path), UploadOptions{}); err == nil {
		t.Fatal("the fault had no effect")
	}
	f.heal()
	if _, err := c.Upload(t.Context(), open(t, path), UploadOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, uploads := f.kept(); uploads != 1 {
		t.Errorf("%d uploads", uploads)
	}
}

func TestStatesOfDifferentUploadsAreApart(t *testing.T) {
	t.Parallel()
	base := State{Server: "s", File: "/f", Size: 1, ModTime: time.Unix(1, 0), Name: "n"}
	seen := map[string]bool{base.ID(): true}
	for _, change := range []func(*State){
		func(s *State) { s.Server = "t" }, func(s *State) { s.File = "/g" }, func(s *State) { s.Size = 2 },
		func(s *State) { s.ModTime = time.Unix(1, 1) }, func(s *State) { s.Name = "m" }, func(s *State) { s.Path = "p" },
		func(s *State) { s.Replace = "r" },
	} {
		s := base
		change(&s)
		if seen[s.ID()] {
			t.Errorf("%+v has the id of another", s)
		}
		seen[s.ID()] = true
	}
}

func TestFileStates(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "a", "b")
	states := NewFileStates(dir)
	s := &State{Server: "s", File: "/f", Size: 3, ModTime: time.Now(), Name: "n", Key: "k", UploadID: "u", SHA1Hash: []byte{1, 2}}
	id := s.ID()
	if got, err := states.Load(id); got != nil || err != nil {
		t.Fatalf("before saving: %v, %v", got, err)
	}
	if err := states.Save(id, s); err != nil {
		t.Fatal(err)
	}
	got, err := states.Load(id)
	if err != nil || got == nil || got.UploadID != "u" || got.ID() != id || !bytes.Equal(got.SHA1Hash, s.SHA1Hash) {
		t.Errorf("loaded %+v, %v", got, err)
	}
	info, err := os.Stat(states.file(id))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v: others can read it", info.Mode(), err)
	}
	other := *s
	other.Size = 4
	if err := states.Save(id, &other); err != nil {
		t.Fatal(err)
	}
	if got, err := states.Load(id); got != nil || err != nil {
		t.Errorf("the state of another upload: %v, %v", got, err)
	}
	if err := os.WriteFile(states.file(id), []byte("{torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := states.Load(id); got != nil || err != nil {
		t.Errorf("a damaged state: %v, %v", got, err)
	}
	old := time.Now().Add(-2 * staleAfter)
	if err := os.Chtimes(states.file(id), old, old); err != nil {
		t.Fatal(err)
	}
	NewFileStates(dir)
	if _, err := os.Stat(states.file(id)); !errors.Is(err, os.ErrNotExist) {
		t.Error("a stale state is kept")
	}
	if err := errors.Join(states.Delete(id), states.Delete(id)); err != nil {
		t.Error(err)
	}
}

// A state that cannot be kept costs a resumption, not the upload.
func TestUploadWithoutAPlaceForStates(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	blocked := fileWith(t, nil) // a file where the directory would be
	c := f.client(func(o *Options) { o.States = NewFileStates(blocked) })
	if _, err := c.Upload(t.Context(), open(t, fileWith(t, content(1, 2*mib))), UploadOptions{}); err != nil {
		t.Fatal(err)
	}
}

// Two runs of the same command: the one that is second to complete gets the file of the first.
func TestCompletedByAnotherProcess(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	want := content(2, 4*mib)
	path := fileWith(t, want)
	f.fault = func(w http.ResponseWriter, _ *http.Request, kind string, n int) bool {
		if kind != "chunk" || n != 2 {
			return false
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, u := range f.uploads {
			f.finish(u, want, upload.SumSHA1(want))
		}
		refuse(w, 409, upload.NotOpen, nil)
		return true
	}
	result, err := f.client(func(o *Options) { o.Parallel = 1 }).Upload(t.Context(), open(t, path), UploadOptions{})
	if err != nil || result.File.ID != f.only().ID {
		t.Errorf("result %+v, error %v", result, err)
	}
}
