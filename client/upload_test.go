package client

import (
	"bytes"
	"context"
	"crypto/sha1"
	"encoding"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"gantry/upload"
)

const mib = 1 << 20

// content is n bytes that look like nothing else.
func content(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	_, _ = r.Read(b)
	return b
}

func fileWith(t *testing.T, b []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file.bin")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func open(t *testing.T, path string) *Source {
	t.Helper()
	src, err := OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = src.Close() })
	return src
}

// record collects events.
type record struct {
	mu     sync.Mutex
	events []Event
}

func (r *record) add(e Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
}

func (r *record) sum(kind EventKind) (n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.events {
		if e.Kind == kind {
			n += e.Bytes
		}
	}
	return n
}

func (r *record) has(kind EventKind) (found []Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.events {
		if e.Kind == kind {
			found = append(found, e)
		}
	}
	return found
}

func TestUploadOfEverySize(t *testing.T) {
	t.Parallel()
	for _, size := range []int{0, 1, upload.HintLength, mib - 1, mib, mib + 1, 5*mib + 7} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			t.Parallel()
			f := newFake(t)
			want := content(uint64(size), size)
			var events record
			result, err := f.client(nil).Upload(t.Context(), open(t, fileWith(t, want)), UploadOptions{Path: "a/b", Events: events.add})
			if err != nil {
				t.Fatal(err)
			}
			got := f.only()
			if !bytes.Equal(got.content, want) || got.FullName() != "a/b/file.bin" || result.File.ID != got.ID {
				t.Errorf("the server has %d bytes as %s", len(got.content), got.FullName())
			}
			if result.Instant || result.BytesSent != int64(size) || result.BytesNotSent != 0 {
				t.Errorf("result %+v", result)
			}
			if events.sum(Acknowledged) != int64(size) || events.sum(Moved) != int64(size) {
				t.Errorf("acknowledged %d, moved %d, want %d", events.sum(Acknowledged), events.sum(Moved), size)
			}
			if small := size < mib; small != (f.count("files POST") == 1) {
				t.Errorf("%d one-shot requests for %d bytes", f.count("files POST"), size)
			}
		})
	}
}

func TestUploadOfStream(t *testing.T) {
	t.Parallel()
	for _, size := range []int{0, 100, mib, 3*mib + 5, 12 * mib} {
		f := newFake(t)
		want := content(uint64(size), size)
		result, err := f.client(nil).Upload(t.Context(), Stream("s", io.MultiReader(bytes.NewReader(want))), UploadOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(f.only().content, want) || result.BytesSent != int64(size) || f.only().Size != int64(size) {
			t.Errorf("%d bytes: the server has %d", size, len(f.only().content))
		}
	}
}

func TestStreamThatFailsIsCancelled(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	broken := io.MultiReader(bytes.NewReader(content(1, 3*mib)), iotestErr{})
	_, err := f.client(nil).Upload(t.Context(), Stream("s", broken), UploadOptions{})
	if e, ok := errors.AsType[*LocalError](err); !ok || !errors.Is(e, os.ErrDeadlineExceeded) {
		t.Errorf("error %v", err)
	}
	if f.count("upload DELETE") != 1 {
		t.Error("the upload was left on the server")
	}
}

type iotestErr struct{}

func (iotestErr) Read([]byte) (int, error) { return 0, os.ErrDeadlineExceeded }

// A Read of a terminal never returns: an interrupted upload must.
func TestStreamThatBlocksCanBeInterrupted(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	r, w := io.Pipe()
	defer func() { _ = w.Close() }()
	ctx, cancel := context.WithCancel(t.Context())
	f.fault = func(_ http.ResponseWriter, _ *http.Request, kind string, _ int) bool {
		if kind == "chunk" {
			cancel()
		}
		return false
	}
	feeding := make(chan struct{})
	go func() {
		defer close(feeding)
		_, _ = w.Write(content(1, 2*mib))
	}()
	if _, err := f.client(nil).Upload(ctx, Stream("s", r), UploadOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	_ = w.Close() // what was not read need not be
	<-feeding
}

// Every call of an upload fails a few times in each of the ways a network has.
func TestFaultsAreTriedAgain(t *testing.T) {
	t.Parallel()
	faults := map[string]func(w http.ResponseWriter, r *http.Request){
		"503": func(w http.ResponseWriter, _ *http.Request) { refuse(w, 503, upload.Unavailable, nil) },
		"502 html": func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "<h1>bad gateway</h1>", http.StatusBadGateway)
		},
		"408":       func(w http.ResponseWriter, _ *http.Request) { refuse(w, 408, upload.Timeout, nil) },
		"429":       func(w http.ResponseWriter, _ *http.Request) { refuse(w, 429, upload.TooMany, nil) },
		"500":       func(w http.ResponseWriter, _ *http.Request) { refuse(w, 500, upload.Internal, nil) },
		"short":     func(w http.ResponseWriter, _ *http.Request) { refuse(w, 400, upload.ShortBody, nil) },
		"cut early": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"cut in body": func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.CopyN(io.Discard, r.Body, 1000)
			panic(http.ErrAbortHandler)
		},
		"cut answer": func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			w.Header().Set("Content-Length", "100")
			w.WriteHeader(201)
			_, _ = w.Write([]byte(`{"id"`))
			panic(http.ErrAbortHandler)
		},
	}
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFake(t)
			f.fault = func(w http.ResponseWriter, r *http.Request, _ string, n int) bool {
				if n > 2 {
					return false
				}
				fault(w, r)
				return true
			}
			want := content(7, 4*mib)
			var events record
			c := f.client(nil)
			if _, err := c.Upload(t.Context(), open(t, fileWith(t, want)), UploadOptions{Events: events.add}); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(f.only().content, want) {
				t.Error("other bytes arrived")
			}
			if got := events.sum(Moved); got != int64(len(want)) {
				t.Errorf("moved %d in the end, want %d: failed attempts are to be taken back", got, len(want))
			}
			retries := events.has(Retrying)
			if len(retries) < 6 || retries[0].Err == nil || retries[0].What == "" {
				t.Errorf("%d retries were told: %+v", len(retries), retries)
			}
			f2 := newFake(t) // and for the one-shot request
			f2.fault = f.fault
			if _, err := f2.client(nil).Upload(t.Context(), Bytes("x", bytes.NewReader(want[:100]), 100), UploadOptions{}); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(f2.only().content, want[:100]) {
				t.Error("other bytes arrived in one shot")
			}
		})
	}
}

// An answer that is lost after the server has acted: the repeated call must not do it twice.
func TestLostAnswersDoNothingTwice(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.fault = func(_ http.ResponseWriter, r *http.Request, kind string, n int) bool {
		if n > 1 {
			return false
		}
		lost := httptest.NewRecorder()
		f.serve(lost, r, kind)
		panic(http.ErrAbortHandler)
	}
	for _, size := range []int{100, 3 * mib} {
		if _, err := f.client(nil).Upload(t.Context(), open(t, fileWith(t, content(3, size))), UploadOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if files, uploads := f.kept(); files != 2 || uploads != 2 {
		t.Errorf("%d files, %d uploads, want 2 and 2", files, uploads)
	}
}

func TestRetryAfterIsHonored(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	var refused atomic.Int64
	f.fault = func(w http.ResponseWriter, _ *http.Request, kind string, n int) bool {
		if kind != "chunk" || n > 1 {
			return false
		}
		refused.Store(time.Now().UnixNano())
		w.Header().Set("Retry-After", "1")
		refuse(w, 503, upload.Unavailable, nil)
		return true
	}
	var events record
	_, err := f.client(nil).Upload(t.Context(), open(t, fileWith(t, content(3, mib))), UploadOptions{Events: events.add})
	if err != nil {
		t.Fatal(err)
	}
	if waited := time.Since(time.Unix(0, refused.Load())); waited < time.Second {
		t.Errorf("came again after %v, the server wanted 1 s", waited)
	}
	if r := events.has(Retrying); len(r) != 1 || r[0].Delay != time.Second || statusOf(r[0].Err) != 503 {
		t.Errorf("told %+v", r)
	}
}

func TestGivesUpWithoutProgress(t *testing.T) {
	t.Parallel()
	for name, wait := range map[string]string{"back-off": "", "Retry-After": "3600"} {
		f := newFake(t)
		f.fault = func(w http.ResponseWriter, _ *http.Request, kind string, _ int) bool {
			if kind != "chunk" {
				return false
			}
			if wait != "" {
				w.Header().Set("Retry-After", wait)
			}
			refuse(w, 503, upload.Unavailable, nil)
			return true
		}
		start := time.Now()
		_, err := f.client(func(o *Options) { o.RetryFor = 300 * time.Millisecond }).Upload(
			t.Context(), open(t, fileWith(t, content(3, mib))), UploadOptions{})
		if !IsTemporary(err) || statusOf(err) != 503 {
			t.Errorf("%s: error %v", name, err)
		}
		if took := time.Since(start); took > 30*time.Second {
			t.Errorf("%s: gave up after %v", name, took)
		}
	}
}

// As long as some chunk gets through, the time does not run out.
func TestProgressProlongsPatience(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.fault = func(w http.ResponseWriter, _ *http.Request, kind string, n int) bool {
		if kind != "chunk" || n%4 == 0 {
			return false
		}
		refuse(w, 503, upload.Unavailable, nil)
		return true
	}
	c := f.client(func(o *Options) { o.RetryFor, o.Parallel = 5*time.Second, 1 })
	c.minDelay, c.maxDelay = 300*time.Millisecond, 300*time.Millisecond
	start := time.Now()
	if _, err := c.Upload(t.Context(), open(t, fileWith(t, content(3, 8*mib))), UploadOptions{}); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took < 5*time.Second {
		t.Errorf("took %v: the test shows nothing", took)
	}
}

func TestStalledRequestIsMadeAgain(t *testing.T) {
	t.Parallel()
	for name, read := range map[string]bool{"in the body": false, "before the answer": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFake(t)
			release := make(chan struct{})
			defer close(release)
			f.chunk = 64 * mib // more than the sockets' buffers hold
			f.fault = func(_ http.ResponseWriter, r *http.Request, kind string, n int) bool {
				if kind != "chunk" || n > 1 {
					return false
				}
				if read {
					_, _ = io.Copy(io.Discard, r.Body)
				}
				<-release // not r.Context(): the server does not see the client go while it reads nothing
				panic(http.ErrAbortHandler)
			}
			want := content(3, 32*mib)
			var events record
			c := f.client(func(o *Options) { o.StallTimeout = 500 * time.Millisecond })
			if _, err := c.Upload(t.Context(), open(t, fileWith(t, want)), UploadOptions{Events: events.add}); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(f.only().content, want) {
				t.Error("other bytes arrived")
			}
			if r := events.has(Retrying); len(r) == 0 || !errors.Is(r[0].Err, errStalled) {
				t.Errorf("told %+v", r)
			}
		})
	}
}

// A rate limit slower than the stall time is not a stall.
func TestSlowBecauseOfLimitIsNoStall(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	c := f.client(func(o *Options) {
		o.StallTimeout, o.Limit, o.RetryFor = 400*time.Millisecond, rate.NewLimiter(50_000, 25_000), -1
	})
	if _, err := c.Upload(t.Context(), Bytes("x", bytes.NewReader(content(1, 50_000)), 50_000), UploadOptions{}); err != nil {
		t.Fatal(err)
	}
}

func TestRateLimit(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	c := f.client(func(o *Options) { o.Limit = rate.NewLimiter(4*mib, 64<<10) })
	start := time.Now()
	if _, err := c.Upload(t.Context(), open(t, fileWith(t, content(1, 2*mib))), UploadOptions{}); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took < 400*time.Millisecond {
		t.Errorf("2 MiB at 4 MiB/s took %v", took)
	}
}

func TestIncompleteSendsTheMissingAgain(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.fault = func(_ http.ResponseWriter, _ *http.Request, kind string, n int) bool {
		if kind == "complete" && n == 1 { // the disk lost two chunks
			f.mu.Lock()
			for _, u := range f.uploads {
				delete(u.chunks, 1)
				delete(u.chunks, 2)
			}
			f.mu.Unlock()
		}
		return false
	}
	want := content(5, 4*mib)
	result, err := f.client(nil).Upload(t.Context(), open(t, fileWith(t, want)), UploadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(f.only().content, want) || f.count("chunk") != 6 || result.BytesSent != 4*mib {
		t.Errorf("%d chunk requests, result %+v", f.count("chunk"), result)
	}
}

func TestAlteredOnItsWay(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.fault = func(_ http.ResponseWriter, r *http.Request, kind string, n int) bool {
		if kind == "chunk" && n == 2 {
			b, _ := io.ReadAll(r.Body)
			b[100] ^= 1
			r.Body = io.NopCloser(bytes.NewReader(b))
		}
		return false
	}
	want := content(5, 4*mib)
	if _, err := f.client(nil).Upload(t.Context(), open(t, fileWith(t, want)), UploadOptions{}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(f.only().content, want) || f.count("chunk") != 5 {
		t.Errorf("%d chunk requests", f.count("chunk"))
	}
}

func TestRefusalsAreNotRepeated(t *testing.T) {
	t.Parallel()
	for _, kind := range []upload.Kind{upload.TooLarge, upload.InvalidName, upload.Forbidden, upload.NoRoom, upload.LengthRequired} {
		f := newFake(t)
		status := map[upload.Kind]int{upload.TooLarge: 413, upload.InvalidName: 400, upload.Forbidden: 403, upload.NoRoom: 507, upload.LengthRequired: 411}[kind]
		f.fault = func(w http.ResponseWriter, _ *http.Request, _ string, _ int) bool {
			refuse(w, status, kind, nil)
			return true
		}
		_, err := f.client(nil).Upload(t.Context(), open(t, fileWith(t, content(1, 2*mib))), UploadOptions{})
		e, ok := errors.AsType[*Error](err)
		if !ok || e.Status != status || e.Detail != "The detail." || e.RequestID != "r1" || !errors.Is(err, kind) || IsTemporary(err) {
			t.Errorf("%v: error %#v", kind, err)
		}
		if f.count("uploads POST") != 1 {
			t.Errorf("%v: asked %d times", kind, f.count("uploads POST"))
		}
	}
}

func TestFileThatChangesIsNotUploaded(t *testing.T) {
	t.Parallel()
	changes := map[string]func(path string) error{
		"longer": func(path string) error {
			f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteString("more")
			return errors.Join(err, f.Close())
		},
		"shorter": func(path string) error { return os.Truncate(path, mib) },
		"other bytes, same time": func(path string) error {
			info, err := os.Stat(path)
			if err != nil {
				return err
			}
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteAt(content(9, 3*mib), mib)
			return errors.Join(err, f.Close(), os.Chtimes(path, info.ModTime(), info.ModTime()))
		},
	}
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFake(t)
			path := fileWith(t, content(5, 6*mib))
			hashed := make(chan struct{})
			f.fault = func(_ http.ResponseWriter, _ *http.Request, kind string, n int) bool {
				if kind == "chunk" && n == 1 {
					<-hashed // so that the digest is of the old bytes
					if err := change(path); err != nil {
						t.Error(err)
					}
				}
				return false
			}
			var once sync.Once
			var read atomic.Int64
			c := f.client(func(o *Options) { o.Parallel = 1; o.States = NewFileStates(t.TempDir()) })
			_, err := c.Upload(t.Context(), open(t, path), UploadOptions{Events: func(e Event) {
				if e.Kind == Hashed && read.Add(e.Bytes) == 6*mib {
					once.Do(func() { close(hashed) })
				}
			}})
			if _, ok := errors.AsType[*LocalError](err); !ok || !errors.Is(err, ErrChanged) {
				t.Errorf("error %v", err)
			}
			if files, _ := f.kept(); files != 0 {
				t.Error("a mixture of two versions became a file")
			}
			if entries, _ := os.ReadDir(c.opt.States.(*FileStates).dir); len(entries) != 0 {
				t.Error("the upload is remembered, though it cannot be gone on with")
			}
		})
	}
}

func TestCancelledOnTheServer(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.fault = func(_ http.ResponseWriter, _ *http.Request, kind string, n int) bool {
		if kind == "chunk" && n == 2 {
			f.mu.Lock()
			for _, u := range f.uploads {
				u.state = upload.Cancelled
			}
			f.mu.Unlock()
		}
		return false
	}
	_, err := f.client(nil).Upload(t.Context(), open(t, fileWith(t, content(5, 6*mib))), UploadOptions{})
	if e, ok := errors.AsType[*Error](err); !ok || !IsGone(err) || e.State != upload.Cancelled {
		t.Errorf("error %v", err)
	}
}

func TestHasherGoesOnFromASnapshot(t *testing.T) {
	t.Parallel()
	b := content(4, 3*mib)
	sum := sha1.New()
	_, _ = sum.Write(b[:mib])
	state, err := sum.(encoding.BinaryMarshaler).MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	read := &countingReader{b: b}
	h := &hasher{src: Bytes("x", read, int64(len(b))), emit: func(Event) {}}
	d, err := h.run(t.Context(), false, state, mib)
	if err != nil || d.sha1 != upload.SumSHA1(b) {
		t.Errorf("digest %v, error %v", d.sha1, err)
	}
	if read.n != 2*mib {
		t.Errorf("read %d bytes, want the last 2 MiB", read.n)
	}
	if d, err := h.run(t.Context(), false, state, 4*mib); err != nil || d.sha1 != upload.SumSHA1(b) {
		t.Errorf("with a position behind the end: digest %v, error %v", d.sha1, err)
	}
	if d, err := h.run(t.Context(), false, []byte("nonsense"), mib); err != nil || d.sha1 != upload.SumSHA1(b) {
		t.Errorf("with a damaged state: digest %v, error %v", d.sha1, err)
	}
}

type countingReader struct {
	b []byte
	n int
}

func (r *countingReader) ReadAt(p []byte, off int64) (int, error) {
	n, err := bytes.NewReader(r.b).ReadAt(p, off)
	r.n += n
	return n, err
}

func TestOpenFileErrors(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, path := range []string{dir, filepath.Join(dir, "absent")} {
		_, err := OpenFile(path)
		if e, ok := errors.AsType[*LocalError](err); !ok || e.Path != path || strings.Count(err.Error(), path) != 1 {
			t.Errorf("error %v", err)
		}
	}
}

// net/http may still read a body when the request has failed; by then the file may be closed.
func TestBodyIsNotReadAfterItsRequest(t *testing.T) {
	t.Parallel()
	ctx, dog := watch(t.Context(), time.Minute)
	defer dog.stop()
	var moved int64
	b := &body{ctx: ctx, src: strings.NewReader("abcdef"), left: 6, dog: dog, onMove: func(n int64) { moved += n }}
	p := make([]byte, 3)
	if n, err := b.Read(p); n != 3 || err != nil || moved != 3 {
		t.Fatalf("read %d, %v, moved %d", n, err, moved)
	}
	if err := b.finish(true); err != nil || moved != 0 {
		t.Errorf("finish: %v, moved %d", err, moved)
	}
	if n, err := b.Read(p); n != 0 || err == nil || moved != 0 {
		t.Errorf("read %d after the end, %v", n, err)
	}
}
