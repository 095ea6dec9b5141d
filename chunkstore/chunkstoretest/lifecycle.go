package chunkstoretest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"

	"gantry/chunkstore"
	"gantry/upload"
)

func testRecheck(t *testing.T, s chunkstore.Staging) {
	content := Bytes(2*chunkSize, 19)
	spec := create(t, s, int64(len(content)))
	for _, i := range []int{0, 1} {
		send(t, s, spec.ID, content, i)
		bad, err := s.Recheck(t.Context(), spec.ID)
		ok(t, err)
		if len(bad) != 0 {
			t.Errorf("bad %v", bad)
		}
	}
	_, err := s.Seal(t.Context(), spec.ID, upload.UnknownSize)
	ok(t, err)
	if _, err := s.Recheck(t.Context(), spec.ID); err != nil || !get(t, s, spec.ID).Sealed {
		t.Errorf("rechecking what is right opened the upload again (%v)", err)
	}
	_, err = s.Recheck(t.Context(), upload.NewUploadID("n0de"))
	want(t, err, upload.NotFound)
}

func testCommitDiscard(t *testing.T, s chunkstore.Staging) {
	content := Bytes(chunkSize+1, 20)
	spec := create(t, s, int64(len(content)))
	send(t, s, spec.ID, content, 0, 1)
	_, err := s.Seal(t.Context(), spec.ID, upload.UnknownSize)
	ok(t, err)
	ok(t, s.Commit(t.Context(), spec.ID))
	ok(t, s.Commit(t.Context(), spec.ID))
	_, err = s.Get(spec.ID)
	want(t, err, upload.NotFound)
	want(t, s.WriteChunk(t.Context(), spec.ID, 0, BodyOf(content)), upload.NotFound)
	_, err = s.Seal(t.Context(), spec.ID, upload.UnknownSize)
	want(t, err, upload.NotFound)
	_, err = s.Recheck(t.Context(), spec.ID)
	want(t, err, upload.NotFound)
	data, err := s.Data()
	ok(t, err)
	if !slices.Equal(data, []string{spec.ID}) {
		t.Errorf("Data: %v", data)
	}
	reader, err := s.Open(t.Context(), spec.ID)
	ok(t, err)
	defer func() { _ = reader.Close() }()

	open := create(t, s, chunkSize)
	send(t, s, open.ID, content, 0)
	for range 2 {
		ok(t, s.Discard(t.Context(), spec.ID))
		ok(t, s.Discard(t.Context(), open.ID))
		ok(t, s.Discard(t.Context(), upload.NewUploadID("n0de")))
		ok(t, s.Discard(t.Context(), "../x"))
	}
	got := make([]byte, len(content))
	if _, err := reader.ReadAt(got, 0); err != nil && !errors.Is(err, io.EOF) || !bytes.Equal(got, content) {
		t.Errorf("Discard disturbed a reader: %v", err)
	}
	for _, id := range []string{spec.ID, open.ID, upload.NewUploadID("n0de"), "../x"} {
		_, err = s.Get(id)
		want(t, err, upload.NotFound)
		_, err = s.Open(t.Context(), id)
		want(t, err, upload.NotFound)
		want(t, s.Commit(t.Context(), id), upload.NotFound)
	}
	if data, err = s.Data(); err != nil || len(data) != 0 {
		t.Errorf("Data: %v, %v", data, err)
	}
	for u := range s.All() {
		t.Errorf("All: %s is left", u.ID)
	}
}

func testDiscardWhileReceiving(t *testing.T, s chunkstore.Staging) {
	content := Bytes(chunkSize, 21)
	spec := create(t, s, 2*chunkSize)
	body, _ := GatedBody(content, 100)
	begun := Begun(&body)
	var wg sync.WaitGroup
	var err error
	wg.Go(func() { err = s.WriteChunk(t.Context(), spec.ID, 0, body) })
	<-begun
	ok(t, s.Discard(t.Context(), spec.ID))
	wg.Wait()
	want(t, err, upload.NotFound)
	if data, err := s.Data(); err != nil || len(data) != 0 {
		t.Errorf("data is left: %v, %v", data, err)
	}

	// Against everything that can go on, many times.
	for range 20 {
		spec := create(t, s, 4*chunkSize)
		whole := Bytes(4*chunkSize, 22)
		for i := range 4 {
			wg.Go(func() {
				if err := s.WriteChunk(t.Context(), spec.ID, i, BodyOf(Chunk(whole, chunkSize, i))); err != nil &&
					!errors.Is(err, upload.NotFound) && !errors.Is(err, upload.Canceled) {
					t.Errorf("chunk: %v", err)
				}
			})
		}
		wg.Go(func() {
			if _, err := s.Seal(t.Context(), spec.ID, upload.UnknownSize); err != nil &&
				!errors.Is(err, upload.NotFound) && !errors.Is(err, upload.Incomplete) {
				t.Errorf("seal: %v", err)
			}
		})
		wg.Go(func() { ok(t, s.Discard(t.Context(), spec.ID)) })
		wg.Wait()
		if data, err := s.Data(); err != nil || len(data) != 0 {
			t.Fatalf("data is left: %v, %v", data, err)
		}
	}
	if h := s.Health(); h.Open != 0 || h.Reserved != 0 {
		t.Errorf("health: %+v", h)
	}
}

func testPrefix(t *testing.T, s chunkstore.Staging) {
	content := Bytes(3*chunkSize, 23)
	spec := create(t, s, int64(len(content)))
	if got := ReadAll(t, s, spec.ID); len(got) != 0 {
		t.Errorf("%d bytes of an empty upload", len(got))
	}
	send(t, s, spec.ID, content, 0, 2)
	before, err := s.Open(t.Context(), spec.ID)
	ok(t, err)
	defer func() { _ = before.Close() }()
	if got := ReadAll(t, s, spec.ID); !bytes.Equal(got, content[:chunkSize]) {
		t.Errorf("the prefix has %d bytes", len(got))
	}
	send(t, s, spec.ID, content, 1)
	if before.Size() != chunkSize {
		t.Errorf("an open prefix grew to %d bytes", before.Size())
	}
	p := make([]byte, chunkSize)
	if n, err := before.ReadAt(p, chunkSize/2); n != chunkSize/2 || !errors.Is(err, io.EOF) {
		t.Errorf("read %d bytes over the end of the prefix, %v", n, err)
	}
}

func testHealth(t *testing.T, s chunkstore.Staging) {
	content := Bytes(3*chunkSize, 24)
	h := s.Health()
	if !h.Writable || h.Open != 0 || h.Reserved != 0 || h.Total <= 0 || h.Free <= 0 {
		t.Fatalf("new: %+v", h)
	}
	spec := create(t, s, int64(len(content)))
	unknown := create(t, s, upload.UnknownSize)
	check := func(when string, reserved int64, open int) {
		t.Helper()
		if h := s.Health(); h.Reserved != reserved || h.Open != open {
			t.Errorf("%s: %d reserved, want %d; %d open, want %d", when, h.Reserved, reserved, h.Open, open)
		}
	}
	check("created", 3*chunkSize, 2)
	send(t, s, spec.ID, content, 1)
	send(t, s, unknown.ID, content, 0)
	check("one chunk", 2*chunkSize, 2)
	send(t, s, spec.ID, content, 1)
	check("again", 2*chunkSize, 2)
	want(t, s.WriteChunk(t.Context(), spec.ID, 0, chunkstore.Body{Reader: failingReader{io.ErrUnexpectedEOF}, Length: chunkSize}), upload.ShortBody)
	check("failed", 2*chunkSize, 2)
	send(t, s, spec.ID, content, 0, 2)
	_, err := s.Seal(t.Context(), spec.ID, upload.UnknownSize)
	ok(t, err)
	check("sealed", 0, 2)
	ok(t, s.Commit(t.Context(), spec.ID))
	check("committed", 0, 1)
	dropped := create(t, s, int64(len(content)))
	send(t, s, dropped.ID, content, 1)
	ok(t, s.Discard(t.Context(), dropped.ID))
	ok(t, s.Discard(t.Context(), unknown.ID))
	check("discarded", 0, 0)
}

func testRestart(t *testing.T, open Opener) {
	s := open(t)
	content := Bytes(4*chunkSize+3, 25)
	half, sealed, committed, unknown := create(t, s, int64(len(content))), create(t, s, int64(len(content))),
		create(t, s, int64(len(content))), create(t, s, upload.UnknownSize)
	send(t, s, half.ID, content, 4, 0, 2)
	send(t, s, unknown.ID, content, 0, 4)
	for _, spec := range []upload.Spec{sealed, committed} {
		send(t, s, spec.ID, content, 1, 0, 2, 4, 3)
		_, err := s.Seal(t.Context(), spec.ID, upload.UnknownSize)
		ok(t, err)
	}
	ok(t, s.Commit(t.Context(), committed.ID))
	before, health := get(t, s, half.ID), s.Health()
	ok(t, s.Close())

	s = open(t)
	if after := s.Health(); after.Reserved != health.Reserved || after.Open != health.Open {
		t.Errorf("health %+v, before %+v", after, health)
	}
	u := get(t, s, half.ID)
	if fmt.Sprint(u.Spec) != fmt.Sprint(half) || !bytes.Equal(u.Received.Bytes(), before.Received.Bytes()) ||
		u.ReceivedBytes != before.ReceivedBytes || !u.UpdatedAt.Equal(before.UpdatedAt) {
		t.Errorf("after a restart %+v, before %+v", u, before)
	}
	if u := get(t, s, unknown.ID); u.Size != int64(len(content)) {
		t.Errorf("the size of an upload that a short chunk showed is %d", u.Size)
	}
	send(t, s, half.ID, content, 0, 1, 3)
	for _, spec := range []upload.Spec{half, sealed} {
		got, err := s.Seal(t.Context(), spec.ID, upload.UnknownSize)
		ok(t, err)
		if got != SealedOf(content) {
			t.Errorf("sealed %+v, want %+v", got, SealedOf(content))
		}
	}
	want(t, s.WriteChunk(t.Context(), sealed.ID, 0, BodyOf(Chunk(content, chunkSize, 0))), upload.NotOpen)
	_, err := s.Get(committed.ID)
	want(t, err, upload.NotFound)
	for _, spec := range []upload.Spec{half, sealed, committed} {
		if !bytes.Equal(ReadAll(t, s, spec.ID), content) {
			t.Errorf("other bytes come back after a restart")
		}
	}
	data, err := s.Data()
	ok(t, err)
	if !slices.Equal(data, []string{committed.ID}) {
		t.Errorf("Data: %v", data)
	}
	ok(t, s.Close())
}

func testAfterClose(t *testing.T, s chunkstore.Staging) {
	spec := create(t, s, chunkSize)
	body, _ := GatedBody(Bytes(chunkSize, 26), 100)
	begun := Begun(&body)
	var wg sync.WaitGroup
	var err error
	wg.Go(func() { err = s.WriteChunk(t.Context(), spec.ID, 0, body) })
	<-begun
	ok(t, s.Close()) // interrupts
	wg.Wait()
	want(t, err, upload.Canceled)
	ok(t, s.Close())
	want(t, s.Create(t.Context(), NewSpec(1, chunkSize)), upload.Unavailable)
	want(t, s.WriteChunk(t.Context(), spec.ID, 0, BodyOf(Bytes(chunkSize, 26))), upload.Unavailable)
	_, err = s.Get(spec.ID)
	want(t, err, upload.Unavailable)
	if s.Health().Writable {
		t.Error("closed, but writable")
	}
}
