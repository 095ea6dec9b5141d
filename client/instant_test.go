package client

import (
	"bytes"
	"io"
	"net/http"
	"testing"
	"time"

	"gantry/upload"
)

// teach makes b known to the server.
func (f *fake) teach(b []byte) {
	tree := upload.NewTreeHasher()
	_, _ = tree.Write(b)
	sum := tree.Sum()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.known[upload.SumSHA1(b)] = &sum
}

func TestInstantBeforeSending(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.maybe = true
	want := content(1, 5*mib+3)
	f.teach(want)
	var events record
	result, err := f.client(nil).Upload(t.Context(), open(t, fileWith(t, want)), UploadOptions{Events: events.add})
	if err != nil {
		t.Fatal(err)
	}
	size := int64(len(want))
	if !result.Instant || result.BytesSent != 0 || result.BytesNotSent != size || result.File.SHA1 != upload.SumSHA1(want) {
		t.Errorf("result %+v", result)
	}
	if f.count("chunk") != 0 || f.count("complete") != 0 {
		t.Errorf("%d chunks, %d completes", f.count("chunk"), f.count("complete"))
	}
	if events.sum(Instant) != size || events.sum(Hashed) != size {
		t.Errorf("instant %d, hashed %d", events.sum(Instant), events.sum(Hashed))
	}
	if phases := events.has(PhaseChanged); phases[0].Phase != Checking {
		t.Errorf("phases %v", phases)
	}
}

func TestMaybeThatIsNot(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.maybe = true
	want := content(1, 3*mib)
	result, err := f.client(nil).Upload(t.Context(), open(t, fileWith(t, want)), UploadOptions{})
	if err != nil || result.Instant || result.BytesSent != 3*mib {
		t.Fatalf("result %+v, error %v", result, err)
	}
	if !bytes.Equal(f.only().content, want) || f.count("instant") != 2 {
		t.Errorf("asked %d times", f.count("instant"))
	}
}

// The server says "no" and learns of the content meanwhile: what is left is not sent, and what is on
// its way is given up.
func TestInstantWhileSending(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	want := content(1, 8*mib)
	f.teach(want)
	f.fault = func(_ http.ResponseWriter, r *http.Request, kind string, n int) bool {
		if kind != "chunk" || n <= 2 {
			return false
		}
		_, _ = io.Copy(io.Discard, r.Body) // only then the server sees the client go
		select {
		case <-r.Context().Done(): // the client must go: nothing else ends this
		case <-time.After(20 * time.Second):
			t.Error("a request was still under way")
		}
		panic(http.ErrAbortHandler)
	}
	start := time.Now()
	result, err := f.client(nil).Upload(t.Context(), open(t, fileWith(t, want)), UploadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if !result.Instant || result.BytesSent+result.BytesNotSent != 8*mib || result.BytesSent > 2*mib {
		t.Errorf("result %+v", result)
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("took %v", took)
	}
}

// A server that takes a proof stops the chunks under way, and says so before it answers the proof. That
// is no failure to tell of.
func TestInstantStopsChunksInSilence(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	want := content(1, 8*mib)
	f.teach(want)
	proved, stopped := make(chan struct{}), make(chan struct{})
	f.fault = func(w http.ResponseWriter, r *http.Request, kind string, n int) bool {
		switch {
		case kind == "instant" && n == 2: // the proof
			close(proved)
			<-stopped
			time.Sleep(50 * time.Millisecond) // the client hears of the chunk first
		case kind == "chunk":
			_, _ = io.Copy(io.Discard, r.Body)
			<-proved
			refuse(w, 409, upload.Canceled, nil)
			if n == 1 {
				close(stopped)
			}
			return true
		}
		return false
	}
	var events record
	result, err := f.client(func(o *Options) { o.Parallel = 4 }).Upload(t.Context(), open(t, fileWith(t, want)), UploadOptions{Events: events.add})
	if err != nil || !result.Instant {
		t.Fatalf("result %+v, error %v", result, err)
	}
	if told := events.has(Retrying); len(told) > 0 {
		t.Errorf("told of %d failures, the first: %v", len(told), told[0].Err)
	}
}

func TestNoInstant(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.maybe = true
	want := content(1, 3*mib)
	f.teach(want)
	result, err := f.client(nil).Upload(t.Context(), open(t, fileWith(t, want)), UploadOptions{NoInstant: true})
	if err != nil || result.Instant || f.count("instant") != 0 {
		t.Errorf("result %+v, asked %d times, error %v", result, f.count("instant"), err)
	}
}

// Asking is an optimization: when it fails the bytes are sent.
func TestInstantThatFailsIsNoFailure(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.maybe = true
	f.fault = func(w http.ResponseWriter, _ *http.Request, kind string, _ int) bool {
		if kind == "instant" {
			refuse(w, 409, upload.Conflict, nil)
		}
		return kind == "instant"
	}
	if _, err := f.client(nil).Upload(t.Context(), open(t, fileWith(t, content(1, 2*mib))), UploadOptions{}); err != nil {
		t.Fatal(err)
	}
}
