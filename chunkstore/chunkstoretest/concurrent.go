package chunkstoretest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"gantry/chunkstore"
	"gantry/upload"
)

// gatedReader gives its first part at once and the rest when the gate opens; Abort breaks it.
type gatedReader struct {
	first io.Reader
	rest  io.Reader
	gate  chan struct{}
	abort chan struct{}
	once  sync.Once
}

// GatedBody is a body that stops after n bytes until open is called.
func GatedBody(p []byte, n int) (body chunkstore.Body, open func()) {
	g := &gatedReader{first: bytes.NewReader(p[:n]), rest: bytes.NewReader(p[n:]), gate: make(chan struct{}), abort: make(chan struct{})}
	return chunkstore.Body{Reader: g, Length: int64(len(p)), Abort: func() { g.once.Do(func() { close(g.abort) }) }}, func() { close(g.gate) }
}

func (g *gatedReader) Read(p []byte) (int, error) {
	if n, err := g.first.Read(p); err == nil {
		return n, nil
	}
	select {
	case <-g.gate:
		return g.rest.Read(p)
	case <-g.abort:
		return 0, errors.New("read aborted")
	}
}

// reading reports when a reader is read for the first time.
type reading struct {
	io.Reader
	once  sync.Once
	begun chan struct{}
}

func (r *reading) Read(p []byte) (int, error) {
	r.once.Do(func() { close(r.begun) })
	return r.Reader.Read(p)
}

// Begun changes body to one that tells when it is read for the first time.
func Begun(body *chunkstore.Body) <-chan struct{} {
	r := &reading{Reader: body.Reader, begun: make(chan struct{})}
	body.Reader = r
	return r.begun
}

func testSameChunkAtOnce(t *testing.T, s chunkstore.Staging) {
	for _, equal := range []bool{true, false} {
		content := Bytes(chunkSize, 14)
		other := content
		if !equal {
			other = Bytes(chunkSize, 15)
		}
		spec := create(t, s, chunkSize)
		body, open := GatedBody(content, 100)
		begun := Begun(&body)
		var wg sync.WaitGroup
		var first, second error
		wg.Go(func() { first = s.WriteChunk(t.Context(), spec.ID, 0, body) })
		<-begun
		repeat := BodyOf(other)
		repeated := Begun(&repeat)
		wg.Go(func() { second = s.WriteChunk(t.Context(), spec.ID, 0, repeat) })
		select {
		case <-repeated:
			t.Error("the repeat was read before the first was done")
		case <-time.After(20 * time.Millisecond):
		}
		open()
		wg.Wait()
		ok(t, first)
		if equal {
			ok(t, second)
		} else {
			want(t, second, upload.ChunkConflict)
		}
		sealed, err := s.Seal(t.Context(), spec.ID, upload.UnknownSize)
		ok(t, err)
		if sealed != SealedOf(content) {
			t.Errorf("sealed %+v, want %+v", sealed, SealedOf(content))
		}
	}
}

func testStalled(t *testing.T, s chunkstore.Staging) {
	content := Bytes(2*chunkSize, 16)
	spec := create(t, s, int64(len(content)))
	body, open := GatedBody(Bytes(chunkSize, 17), 100) // other bytes, never acknowledged
	defer open()
	begun := Begun(&body)
	var wg sync.WaitGroup
	var first error
	wg.Go(func() { first = s.WriteChunk(t.Context(), spec.ID, 0, body) })
	<-begun
	send(t, s, spec.ID, content, 0)
	wg.Wait()
	want(t, first, upload.Canceled)

	// Who waits may give up.
	body, open2 := GatedBody(content[chunkSize:], 100)
	body.Abort = nil // a connection that cannot be broken
	begun = Begun(&body)
	wg.Go(func() { first = s.WriteChunk(t.Context(), spec.ID, 1, body) })
	<-begun
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	want(t, s.WriteChunk(ctx, spec.ID, 1, BodyOf(content[chunkSize:])), upload.Timeout)
	open2()
	wg.Wait()
	if first != nil {
		want(t, first, upload.Canceled)
		send(t, s, spec.ID, content, 1)
	}
	sealed, err := s.Seal(t.Context(), spec.ID, upload.UnknownSize)
	ok(t, err)
	if sealed != SealedOf(content) {
		t.Errorf("sealed %+v, want %+v", sealed, SealedOf(content))
	}
}

func testAllAtOnce(t *testing.T, s chunkstore.Staging) {
	content := Bytes(16*chunkSize+5, 18)
	spec := create(t, s, int64(len(content)))
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for _, i := range rand.Perm(17) {
				if err := s.WriteChunk(t.Context(), spec.ID, i, BodyOf(Chunk(content, chunkSize, i))); err != nil && !errors.Is(err, upload.NotOpen) {
					t.Errorf("chunk %d: %v", i, err)
				}
			}
		})
	}
	results := make(chan upload.Sealed, 4)
	for range 4 {
		wg.Go(func() {
			for t.Context().Err() == nil {
				sealed, err := s.Seal(t.Context(), spec.ID, upload.UnknownSize)
				if err == nil {
					results <- sealed
					return
				}
				if !errors.Is(err, upload.Incomplete) {
					t.Errorf("seal: %v", err)
					return
				}
				if _, err := s.Get(spec.ID); err != nil {
					t.Errorf("get: %v", err)
				}
			}
		})
	}
	wg.Wait()
	close(results)
	for sealed := range results {
		if sealed != SealedOf(content) {
			t.Errorf("sealed %+v, want %+v", sealed, SealedOf(content))
		}
	}
}
