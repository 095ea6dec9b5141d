package client

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"gantry/upload"
)

func (f *fake) store(id string, b []byte) {
	f.files[id] = &fakeFile{File{ID: id, Name: "n", Size: int64(len(b)), SHA1: upload.SumSHA1(b)}, b}
}

func TestDownloadOfEverySize(t *testing.T) {
	t.Parallel()
	for _, size := range []int{0, 1, rangeSize, 3*rangeSize + 9} {
		f := newFake(t)
		want := content(uint64(size), size)
		f.store("f", want)
		dir := t.TempDir()
		path := filepath.Join(dir, "out")
		var events record
		done, err := f.client(nil).Download(t.Context(), "f", path, DownloadOptions{Events: events.add})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) || done.BytesReceived != int64(size) {
			t.Errorf("%d bytes: got %d, %v", size, len(got), err)
		}
		if entries, _ := os.ReadDir(dir); len(entries) != 1 {
			t.Errorf("left behind: %v", entries)
		}
		if events.sum(Acknowledged) != int64(size) || events.sum(Moved) != int64(size) || events.sum(Hashed) != int64(size) {
			t.Errorf("acknowledged %d, moved %d, hashed %d", events.sum(Acknowledged), events.sum(Moved), events.sum(Hashed))
		}
		var out bytes.Buffer
		if _, err := f.client(nil).WriteTo(t.Context(), &out, "f", DownloadOptions{}); err != nil || !bytes.Equal(out.Bytes(), want) {
			t.Errorf("written %d bytes, %v", out.Len(), err)
		}
	}
}

// Answers that break off: only what is missing is fetched again.
func TestDownloadThroughFaults(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	want := content(1, 2*rangeSize+5)
	f.store("f", want)
	var sent atomic.Int64
	f.fault = func(w http.ResponseWriter, r *http.Request, kind string, n int) bool {
		if kind != "content" {
			return false
		}
		if n%3 == 0 {
			refuse(w, 503, upload.Unavailable, nil)
			return true
		}
		first, last, _ := strings.Cut(strings.TrimPrefix(r.Header.Get("Range"), "bytes="), "-")
		a, _ := strconv.Atoi(first)
		b, err := strconv.Atoi(last)
		if err != nil {
			b = len(want) - 1
		}
		part := want[a : b+1]
		w.Header().Set("Content-Length", strconv.Itoa(len(part)))
		w.Header().Set("Content-Range", "bytes "+first+"-"+last+"/*")
		w.WriteHeader(206)
		n64, _ := w.Write(part[:(len(part)+1)/2])
		sent.Add(int64(n64))
		if len(part) > 1000 {
			_ = http.NewResponseController(w).Flush() // or nothing of a short part arrives
			panic(http.ErrAbortHandler)
		}
		m, _ := w.Write(part[n64:])
		sent.Add(int64(m))
		return true
	}
	path := filepath.Join(t.TempDir(), "out")
	if _, err := f.client(nil).Download(t.Context(), "f", path, DownloadOptions{}); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
		t.Errorf("got %d bytes, %v", len(got), err)
	}
	if n := sent.Load(); n > int64(len(want))*3/2 {
		t.Errorf("%d bytes were sent for %d", n, len(want))
	}
	var out bytes.Buffer
	if _, err := f.client(nil).WriteTo(t.Context(), &out, "f", DownloadOptions{}); err != nil || !bytes.Equal(out.Bytes(), want) {
		t.Errorf("written %d bytes, %v", out.Len(), err)
	}
}

func TestDownloadStall(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	want := content(1, 100_000)
	f.store("f", want)
	f.fault = func(w http.ResponseWriter, r *http.Request, kind string, n int) bool {
		if kind != "content" || n > 1 {
			return false
		}
		w.Header().Set("Content-Length", "100000")
		w.WriteHeader(206)
		_, _ = w.Write(want[:10])
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		return true
	}
	var events record
	c := f.client(func(o *Options) { o.StallTimeout = 100 * time.Millisecond })
	if _, err := c.Download(t.Context(), "f", filepath.Join(t.TempDir(), "out"), DownloadOptions{Events: events.add}); err != nil {
		t.Fatal(err)
	}
	if r := events.has(Retrying); len(r) != 1 || !errors.Is(r[0].Err, errStalled) {
		t.Errorf("told %+v", r)
	}
}

// stopAfter downloads until n ranges are there.
func stopAfter(t *testing.T, f *fake, path string, n int64) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var got int64
	c := f.client(func(o *Options) { o.Parallel = 1 })
	_, err := c.Download(ctx, "f", path, DownloadOptions{Events: func(e Event) {
		if e.Kind == Acknowledged {
			if got += e.Bytes; got >= n*rangeSize {
				cancel()
			}
		}
	}})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("ended with %v", err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Fatal("an unfinished file has the final name")
	}
}

func TestDownloadResumes(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	want := content(1, 4*rangeSize)
	f.store("f", want)
	path := filepath.Join(t.TempDir(), "out")
	stopAfter(t, f, path, 2)
	done, err := f.client(nil).Download(t.Context(), "f", path, DownloadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(path); !bytes.Equal(got, want) || done.BytesReceived > 2*rangeSize {
		t.Errorf("received %d again, got %d bytes", done.BytesReceived, len(got))
	}
}

// What an interrupted run left was damaged: all is fetched anew, and the result is right.
func TestDownloadDoesNotTrustWhatItFinds(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	want := content(1, 4*rangeSize)
	f.store("f", want)
	path := filepath.Join(t.TempDir(), "out")
	stopAfter(t, f, path, 2)
	part, err := os.OpenFile(path+partSuffix, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := part.WriteAt([]byte("damage"), 100); err != nil || part.Close() != nil {
		t.Fatal(err)
	}
	done, err := f.client(nil).Download(t.Context(), "f", path, DownloadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(path); !bytes.Equal(got, want) || done.BytesReceived != 4*rangeSize {
		t.Errorf("received %d, got %d bytes", done.BytesReceived, len(got))
	}
}

// The file was replaced by another between two runs: nothing of the old one is used.
func TestDownloadOfAnotherContent(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.store("f", content(1, 4*rangeSize))
	path := filepath.Join(t.TempDir(), "out")
	stopAfter(t, f, path, 2)
	want := content(2, 4*rangeSize)
	f.store("f", want)
	var events record
	if _, err := f.client(nil).Download(t.Context(), "f", path, DownloadOptions{Events: events.add}); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(path); !bytes.Equal(got, want) {
		t.Error("a mixture")
	}
	if r := events.has(Resumed); len(r) != 0 {
		t.Errorf("went on with the old content: %+v", r)
	}
}

func TestWrongBytesNeverGetTheName(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.store("f", content(1, 1000))
	f.files["f"].SHA1[0] ^= 1
	path := filepath.Join(t.TempDir(), "out")
	if _, err := f.client(nil).Download(t.Context(), "f", path, DownloadOptions{}); !errors.Is(err, ErrCorrupt) {
		t.Errorf("error %v", err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Error("wrong bytes have the name")
	}
	if _, err := f.client(nil).WriteTo(t.Context(), io.Discard, "f", DownloadOptions{}); !errors.Is(err, ErrCorrupt) {
		t.Errorf("error %v", err)
	}
}

func TestDownloadDoesNotOverwrite(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	want := content(1, 1000)
	f.store("f", want)
	path := fileWith(t, []byte("precious"))
	if _, err := f.client(nil).Download(t.Context(), "f", path, DownloadOptions{}); !errors.Is(err, ErrExists) {
		t.Errorf("error %v", err)
	}
	if f.count("content") != 0 {
		t.Error("downloaded what could not be saved")
	}
	late := filepath.Join(t.TempDir(), "late") // appears while the download runs
	f.fault = func(_ http.ResponseWriter, _ *http.Request, kind string, _ int) bool {
		if kind == "content" {
			if err := os.WriteFile(late, []byte("precious"), 0o600); err != nil {
				t.Error(err)
			}
		}
		return false
	}
	if _, err := f.client(nil).Download(t.Context(), "f", late, DownloadOptions{}); !errors.Is(err, ErrExists) {
		t.Errorf("error %v", err)
	}
	for _, p := range []string{path, late} {
		if got, _ := os.ReadFile(p); string(got) != "precious" {
			t.Errorf("%s was overwritten", p)
		}
	}
	f.heal()
	if _, err := f.client(nil).Download(t.Context(), "f", path, DownloadOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(path); !bytes.Equal(got, want) {
		t.Error("not overwritten with Force")
	}
	if _, err := f.client(nil).Download(t.Context(), "f", t.TempDir(), DownloadOptions{Force: true}); err == nil {
		t.Error("a directory was replaced")
	}
}
