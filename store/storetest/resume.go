package storetest

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"gantry/store"
)

// cut begins a Put with a checkpoint and ends its context in the middle of the content. It returns how many bytes
// the store had by then, as Progress said.
func (s suite) cut(t *testing.T, st store.Store, key string, data []byte, checkpoint store.Checkpoint) (sent int64) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	err := st.Put(ctx, key, cancelingContent{bytes.NewReader(data), cancel}, store.PutOptions{Checkpoint: checkpoint, Progress: func(n int64) { sent = n }})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("Put whose context ended in the middle: %v", err)
	}
	expectNone(t, st, key)
	return sent
}

// resume goes on with a Put that was cut off, by another value of the store, after a Clean.
func (s suite) resume(t *testing.T) {
	st, data, checkpoint := s.open(t), Bytes(21, int(6*s.part()+77)), &Checkpoint{}
	key := Key(data, "a")
	there := s.cut(t, st, key, data, checkpoint)
	if s.caps.Sent != nil && (checkpoint.Load() == nil || there < s.part()) {
		t.Fatalf("a Put that was cut off in the middle has sent %d bytes, and keeps %q", there, checkpoint.Load())
	}
	if err := st.Clean(t.Context()); err != nil {
		t.Fatal(err)
	}
	var before, last int64
	if s.caps.Sent != nil {
		before = s.caps.Sent(st)
	}
	err := st.Put(t.Context(), key, bytes.NewReader(data), store.PutOptions{Checkpoint: checkpoint, Progress: func(n int64) { last = n }})
	if err != nil {
		t.Fatal(err)
	}
	if last != int64(len(data)) {
		t.Errorf("progress ends at %d of %d", last, len(data))
	}
	if s.caps.Sent != nil {
		if sent := s.caps.Sent(st) - before; sent > int64(len(data))-there {
			t.Errorf("%d of %d bytes were there, and %d were sent", there, len(data), sent)
		}
	}
	expect(t, st, key, data)
	if err := st.Clean(t.Context()); err != nil {
		t.Fatal(err)
	}
	expect(t, st, key, data)
}

// checkpoints puts with checkpoints that are of no use, or of another Put.
func (s suite) checkpoints(t *testing.T) {
	size := int(3*s.part() + 5)
	st, data := s.open(t), Bytes(22, size)
	key := Key(data, "a")
	with := func(st store.Store, what, key string, data, state []byte) {
		t.Helper()
		checkpoint := &Checkpoint{state: state}
		if err := st.Put(t.Context(), key, bytes.NewReader(data), store.PutOptions{Checkpoint: checkpoint}); err != nil {
			t.Errorf("Put with a checkpoint that is %s: %v", what, err)
			return
		}
		expect(t, st, key, data)
	}
	for _, garbage := range []string{"", "x", "{", "{}", "null", "[1]", `{"id":""}`, `{"id":"nonsense"}`, "\x00\xff\xfe", string(Bytes(23, store.MaxCheckpoint))} {
		with(st, "garbage", key, data[:100], []byte(garbage))
		with(st, "garbage", key, data, []byte(garbage))
	}

	checkpoint, other := &Checkpoint{}, Bytes(24, size)
	s.cut(t, st, Key(other, "b"), other, checkpoint)
	foreign := checkpoint.Load()
	with(st, "of another object", key, data, foreign)
	with(s.open(t), "of another store", Key(other, "b"), other, foreign)
	with(st, "of an object of another size", Key(other, "b"), other[:size-1], foreign)
	with(st, "of an upload that has ended", Key(other, "b"), other, foreign)

	checkpoint = &Checkpoint{}
	if err := st.Put(t.Context(), key, bytes.NewReader(data), store.PutOptions{Checkpoint: checkpoint}); err != nil {
		t.Fatal(err)
	}
	with(st, "of a Put that was done", key, data, checkpoint.Load())
	changed := Bytes(25, size) // the same size, and other bytes: what is there is not to be believed
	s.cut(t, st, Key(changed, "c"), changed, checkpoint)
	with(st, "of other bytes", Key(changed, "c"), data, checkpoint.Load())
}
