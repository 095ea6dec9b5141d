package multipart

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"gantry/store"
	"gantry/store/storetest"
	"gantry/upload"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// small is the options for objects of some bytes.
func small() Options { return Options{PartSize: 4, MinPart: 4, MaxParts: 10} }

// Of an object of any size there are no more parts than the store allows, and none is too small.
func TestPartSize(t *testing.T) {
	p := New(newFake(), Options{})
	for size, want := range map[int64]int64{
		0: 16 << 20, 1: 16 << 20, 16<<20 + 1: 16 << 20, 10_000 * 16 << 20: 16 << 20, 10_000*16<<20 + 1: 17 << 20,
		5_000_000_000_000: 477 << 20, 5 << 40: 525 << 20, 50_000_000_000_000: 4769 << 20,
	} {
		if got := p.PartSize(size); got != want {
			t.Errorf("parts of an object of %d bytes have %d, want %d", size, got, want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		opt := Options{PartSize: rapid.Int64Range(1, 1<<30).Draw(t, "part"), MaxParts: rapid.IntRange(1, 10_000).Draw(t, "parts")}
		p, size := New(newFake(), opt), rapid.Int64Range(1, 5<<40).Draw(t, "size")
		part := p.PartSize(size)
		if parts := (size + part - 1) / part; parts > int64(opt.MaxParts) || part < 5<<20 {
			t.Fatalf("%d parts of %d bytes", parts, part)
		}
	})
}

func TestPut(t *testing.T) {
	for size := range 41 {
		f, data := newFake(), storetest.Bytes(uint64(size), size)
		var told []int64
		if err := New(f, small()).Put(t.Context(), "k", bytes.NewReader(data), store.PutOptions{Progress: func(sent int64) { told = append(told, sent) }}); err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		f.expect(t, "k", data)
		f.left(t)
		parts := (size + 3) / 4
		if size <= 4 {
			parts = 0
		}
		if got := f.count("part"); got != parts {
			t.Errorf("%d bytes: %d parts, want %d", size, got, parts)
		}
		if len(told) != max(parts, 1) || !slices.IsSorted(told) || told[len(told)-1] != int64(size) {
			t.Errorf("%d bytes: progress %d", size, told)
		}
	}
}

// pattern is content that needs no memory.
type pattern int64

func (p pattern) Size() int64 { return int64(p) }

func (p pattern) ReadAt(b []byte, off int64) (int, error) {
	if n := int64(p) - off; n < int64(len(b)) {
		return int(n), io.EOF
	}
	return len(b), nil
}

// All Puts together have no more than Parts times PartSize in their hands; only a part larger than that has more,
// and is alone.
func TestMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.latency, f.maxParts = time.Second, 1000
		p := New(f, Options{PartSize: 1000, MinPart: 1, Parts: 3, MaxParts: 20})
		all := func(sizes ...int64) {
			var running sync.WaitGroup
			for i, size := range sizes {
				for j := range 5 {
					running.Go(func() {
						if err := p.Put(t.Context(), fmt.Sprint(i, j), pattern(size), store.PutOptions{}); err != nil {
							t.Error(err)
						}
					})
				}
			}
			running.Wait()
		}
		all(20_000, 5500, 1, 10, 900, 1000)
		if f.most > 3000 || f.most < 2500 {
			t.Errorf("%d bytes were on their way, want at most 3000, and not much less", f.most)
		}
		f.most = 0
		p = New(f, Options{PartSize: 1000, MinPart: 1, Parts: 3, MaxParts: 1}) // parts of a mebibyte
		all(20_000, 5500, 1<<20)
		if f.most > 1<<20 {
			t.Errorf("%d bytes were on their way, want one part of %d", f.most, 1<<20)
		}
	})
}

// What may pass is tried again, Options.Tries times in all, and not at once. What will not is not.
func TestTries(t *testing.T) {
	failures := map[error]bool{
		errLost: true, upload.Timeout: true, upload.TooMany: true, upload.DigestMismatch: true,
		upload.Invalid: false, upload.NoRoom: false, upload.NotFound: false, upload.Conflict: false,
	}
	for failure, passes := range failures {
		for _, what := range []string{"put", "create", "part 2", "complete", "parts"} {
			for _, times := range []int{1, 3, 4} {
				synctest.Test(t, func(t *testing.T) {
					f, data := newFake(), storetest.Bytes(1, 10)
					if what == "put" {
						data = data[:4]
					}
					checkpoint := &storetest.Checkpoint{}
					if what == "parts" {
						putUntil(t, f, data, checkpoint, "part 3")
					}
					server := &failing{fake: f, what: what, err: failure, left: times}
					began := time.Now()
					err := New(server, small()).Put(t.Context(), "k", bytes.NewReader(data), store.PutOptions{Checkpoint: checkpoint})
					anew := what == "parts" && errors.Is(failure, upload.NotFound) // the upload is gone: there is a new one
					if good := passes && times < 4 || anew; good != (err == nil) || !good && !errors.Is(err, failure) {
						t.Errorf("%s failed %d times with %v: %v", what, times, failure, err)
					} else if good {
						f.expect(t, "k", data)
						if waited := time.Since(began); passes && waited < 100*time.Millisecond {
							t.Errorf("%s was tried again after %v", what, waited)
						}
					}
					if tries := times - server.left; !passes && tries > 1 && !anew {
						t.Errorf("%s that failed with %v was tried %d times", what, failure, tries)
					}
				})
			}
		}
	}
}

// failing is a fake whose requests of one kind fail, before they are done.
type failing struct {
	*fake
	what string
	err  error
	left int
}

func (f *failing) fails(what string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if what != f.what || f.left == 0 {
		return false
	}
	f.left--
	return true
}

func (f *failing) PutObject(ctx context.Context, key string, body []byte) error {
	if f.fails("put") {
		return f.err
	}
	return f.fake.PutObject(ctx, key, body)
}

func (f *failing) Create(ctx context.Context, key string) (string, error) {
	if f.fails("create") {
		return "", f.err
	}
	return f.fake.Create(ctx, key)
}

func (f *failing) PutPart(ctx context.Context, key, id string, number int, body []byte) (store.Part, error) {
	if f.fails(fmt.Sprint("part ", number)) {
		return store.Part{}, f.err
	}
	return f.fake.PutPart(ctx, key, id, number, body)
}

func (f *failing) Complete(ctx context.Context, key, id string, parts []store.Part) error {
	if f.fails("complete") {
		return f.err
	}
	return f.fake.Complete(ctx, key, id, parts)
}

func (f *failing) Parts(ctx context.Context, key, id string) iter.Seq2[store.Part, error] {
	if f.fails("parts") {
		return func(yield func(store.Part, error) bool) { yield(store.Part{}, f.err) }
	}
	return f.fake.Parts(ctx, key, id)
}

// putUntil puts until a request is made, whose fault ends the Put. It returns what Progress said last.
func putUntil(t *testing.T, f *fake, data []byte, checkpoint store.Checkpoint, what string) (sent int64) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	f.fault = func(now string) fault {
		if now == what {
			cancel()
		}
		return fine
	}
	opt := small()
	opt.Parts = 1 // one after the other
	err := New(f, opt).Put(ctx, "k", bytes.NewReader(data), store.PutOptions{Checkpoint: checkpoint, Progress: func(n int64) { sent = n }})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("a Put that was cut off: %v", err)
	}
	f.fault = nil
	return sent
}

// A Put goes on where the one before was cut off, and sends nothing that is there.
func TestResume(t *testing.T) {
	data := storetest.Bytes(3, 26) // 7 parts
	for there := range 7 {
		f, checkpoint := newFake(), &storetest.Checkpoint{}
		if sent := putUntil(t, f, data, checkpoint, fmt.Sprint("part ", there+1)); sent != int64(there*4) {
			t.Fatalf("%d bytes were there, want %d", sent, there*4)
		}
		f.requests = nil
		var told []int64
		if err := New(f, small()).Put(t.Context(), "k", bytes.NewReader(data), store.PutOptions{Checkpoint: checkpoint, Progress: func(n int64) { told = append(told, n) }}); err != nil {
			t.Fatal(err)
		}
		f.expect(t, "k", data)
		f.left(t)
		if got := f.count("part"); got != 7-there {
			t.Errorf("%d parts were sent, %d of 7 were there", got, there)
		}
		if f.count("create") != 0 {
			t.Error("there is a new upload")
		}
		if len(told) != 7 || !slices.IsSorted(told) || told[6] != 26 {
			t.Errorf("progress: %d", told)
		}
	}
}

// A part that has other bytes, or fewer, is sent again.
func TestResumeBelievesNothing(t *testing.T) {
	data := storetest.Bytes(4, 26)
	f, checkpoint := newFake(), &storetest.Checkpoint{}
	putUntil(t, f, data, checkpoint, "part 6")
	for _, u := range f.uploads {
		u.parts[2], u.parts[3] = []byte("abcd"), u.parts[3][:3]
	}
	f.requests = nil
	if err := New(f, small()).Put(t.Context(), "k", bytes.NewReader(data), store.PutOptions{Checkpoint: checkpoint}); err != nil {
		t.Fatal(err)
	}
	f.expect(t, "k", data)
	if got := f.count("part"); got != 4 {
		t.Errorf("%d parts were sent, want 2, 3, 6 and 7", got)
	}
}

// With other settings, or another content, the parts are others: the upload before is aborted.
func TestChangedSettings(t *testing.T) {
	data := storetest.Bytes(5, 26)
	for name, change := range map[string]func(o *Options, data *[]byte){
		"larger parts":  func(o *Options, _ *[]byte) { o.PartSize = 5 },
		"fewer parts":   func(o *Options, _ *[]byte) { o.MaxParts = 1 },
		"other content": func(_ *Options, data *[]byte) { *data = (*data)[:20] },
	} {
		for _, broken := range []bool{false, true} { // Abort
			f, checkpoint := newFake(), &storetest.Checkpoint{}
			putUntil(t, f, data, checkpoint, "part 3")
			if broken {
				f.fault = func(what string) fault {
					if what == "abort" {
						return before
					}
					return fine
				}
			}
			opt, now := small(), data
			change(&opt, &now)
			f.minPart = 1
			if err := New(f, opt).Put(t.Context(), "k", bytes.NewReader(now), store.PutOptions{Checkpoint: checkpoint}); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			f.expect(t, "k", now)
			if !broken {
				f.left(t)
			}
			if f.count("abort") != 1 || f.count("create") != 2 {
				t.Errorf("%s: %d uploads were aborted, %d made", name, f.count("abort"), f.count("create"))
			}
		}
	}
}

// The checkpoint is kept before anything is sent, or nobody would know of the upload.
func TestCheckpointFirst(t *testing.T) {
	f, data := newFake(), storetest.Bytes(6, 26)
	full := errors.New("the database is away")
	err := New(f, small()).Put(t.Context(), "k", bytes.NewReader(data), store.PutOptions{Checkpoint: failingCheckpoint{full}})
	if !errors.Is(err, full) || f.count("part") != 0 {
		t.Errorf("%v, and %d parts were sent", err, f.count("part"))
	}
	checkpoint := &storetest.Checkpoint{}
	var early atomic.Bool
	f.fault = func(what string) fault {
		if checkpoint.Load() == nil && what != "create" {
			early.Store(true)
		}
		return fine
	}
	if err := New(f, small()).Put(t.Context(), "k", bytes.NewReader(data), store.PutOptions{Checkpoint: checkpoint}); err != nil || early.Load() {
		t.Errorf("%v; something was sent before the checkpoint: %v", err, early.Load())
	}
}

type failingCheckpoint struct{ err error }

func (failingCheckpoint) Load() []byte                         { return nil }
func (c failingCheckpoint) Save(context.Context, []byte) error { return c.err }

// An answer to Complete that is lost is found out about, whether it was done or not. There is no second Complete
// as long as it is not known what came of the first.
func TestLostAnswer(t *testing.T) {
	data := storetest.Bytes(7, 26)
	for name, test := range map[string]struct {
		lot   fault
		times int // how often Complete meets it
		mute  int // how often the question what came of it is not answered
		good  bool
		made  int // Completes
	}{
		"done":                      {after, 1, 0, true, 1},
		"not done":                  {before, 1, 0, true, 2},
		"not done, thrice":          {before, 3, 0, true, 4},
		"never done":                {before, 4, 0, false, 4}, // though there is an object of this size
		"done, no answer for a bit": {after, 1, 2, true, 1},
		"done, no answer at all":    {after, 1, 100, false, 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			f, checkpoint, completes, asked := newFake(), &storetest.Checkpoint{}, 0, 0
			f.objects["k"] = storetest.Bytes(1, len(data))
			f.fault = func(what string) fault {
				switch what {
				case "complete":
					if completes++; completes <= test.times {
						return test.lot
					}
				case "parts":
					if asked++; asked <= test.mute {
						return before
					}
				}
				return fine
			}
			p := New(f, small())
			err := p.Put(t.Context(), "k", bytes.NewReader(data), store.PutOptions{Checkpoint: checkpoint})
			if (err == nil) != test.good || completes != test.made {
				t.Errorf("%s: %v after %d Completes", name, err, completes)
			}
			f.fault = nil
			if err == nil {
				f.expect(t, "k", data)
				f.left(t)
			}
			if err := p.Put(t.Context(), "k", bytes.NewReader(data), store.PutOptions{Checkpoint: checkpoint}); err != nil {
				t.Errorf("%s: put again: %v", name, err)
			}
			f.expect(t, "k", data)
			f.left(t)
		})
	}
}

// An upload that is gone and has left no object, or one of another size, is a failure.
func TestGoneAndNotDone(t *testing.T) {
	for _, there := range []string{"", "another"} {
		for lot, want := range map[fault]upload.Kind{fine: upload.NotFound, before: upload.Unavailable} {
			synctest.Test(t, func(t *testing.T) {
				f, data, checkpoint := newFake(), storetest.Bytes(8, 26), &storetest.Checkpoint{}
				if there != "" {
					f.objects["k"] = []byte(there)
				}
				f.fault = func(what string) fault {
					if what != "complete" {
						return fine
					}
					f.mu.Lock()
					defer f.mu.Unlock()
					clear(f.uploads) // a lifecycle rule, or an operator
					return lot
				}
				p := New(f, small())
				if err := p.Put(t.Context(), "k", bytes.NewReader(data), store.PutOptions{Checkpoint: checkpoint}); !errors.Is(err, want) {
					t.Errorf("an upload that is gone: %v, want %v", err, want)
				}
				f.fault = nil
				if err := p.Put(t.Context(), "k", bytes.NewReader(data), store.PutOptions{Checkpoint: checkpoint}); err != nil {
					t.Error(err)
				}
				f.expect(t, "k", data)
			})
		}
	}
}

// A Put that is cancelled before its first part makes no object of none.
func TestCancelBeforeParts(t *testing.T) {
	f := newFake()
	ctx, cancel := context.WithCancel(t.Context())
	err := New(f, small()).Put(ctx, "k", bytes.NewReader(storetest.Bytes(1, 26)), store.PutOptions{Checkpoint: cancelingCheckpoint(cancel)})
	if !errors.Is(err, context.Canceled) || f.count("part")+f.count("complete") > 0 {
		t.Errorf("%v after %q", err, f.requests)
	}
}

type cancelingCheckpoint func()

func (cancelingCheckpoint) Load() []byte { return nil }

func (c cancelingCheckpoint) Save(context.Context, []byte) error {
	c()
	return nil
}

// A Put that is cancelled at any request returns, as cancelled, and there is no object.
func TestCancel(t *testing.T) {
	data := storetest.Bytes(9, 26)
	for _, what := range []string{"create", "part 1", "part 4", "part 7", "complete"} {
		synctest.Test(t, func(t *testing.T) {
			f := newFake()
			f.latency = time.Hour
			ctx, cancel := context.WithCancel(t.Context())
			f.fault = func(now string) fault {
				if now == what {
					cancel()
				}
				return fine
			}
			err := New(f, small()).Put(ctx, "k", bytes.NewReader(data), store.PutOptions{})
			if !errors.Is(err, context.Canceled) || !errors.Is(err, upload.Canceled) {
				t.Errorf("cancelled at %s: %v", what, err)
			}
			if len(f.objects) > 0 {
				t.Errorf("cancelled at %s, and there is an object", what)
			}
		})
	}
}

// One part that fails for good ends the others.
func TestFailureEndsAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.latency = time.Hour
		server := &failing{fake: f, what: "part 1", err: upload.Invalid, left: 1}
		began := time.Now()
		if err := New(server, small()).Put(t.Context(), "k", bytes.NewReader(storetest.Bytes(1, 40)), store.PutOptions{}); !errors.Is(err, upload.Invalid) {
			t.Error(err)
		}
		if waited := time.Since(began); waited >= time.Hour {
			t.Errorf("it took %v", waited)
		}
		if n := f.count("part"); n > 4 {
			t.Errorf("%d parts were sent", n)
		}
	})
}

func TestClean(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, data, checkpoint := newFake(), storetest.Bytes(10, 26), &storetest.Checkpoint{}
		putUntil(t, f, data, &storetest.Checkpoint{}, "part 3")
		time.Sleep(2 * time.Hour)
		putUntil(t, f, data, checkpoint, "part 3")
		p := New(f, small())
		if err := p.Clean(t.Context(), time.Hour); err != nil || len(f.uploads) != 1 {
			t.Errorf("%v; %d uploads are left, want the one that is young", err, len(f.uploads))
		}
		f.requests = nil
		if err := p.Put(t.Context(), "k", bytes.NewReader(data), store.PutOptions{Checkpoint: checkpoint}); err != nil || f.count("part") != 5 {
			t.Errorf("%v, %d parts were sent", err, f.count("part"))
		}
		f.left(t)
		for _, what := range []string{"uploads", "abort"} {
			putUntil(t, f, data, &storetest.Checkpoint{}, "part 3")
			f.fault = func(now string) fault {
				if now == what {
					return before
				}
				return fine
			}
			if err := p.Clean(t.Context(), -1); !errors.Is(err, upload.Unavailable) {
				t.Errorf("Clean whose %s fails: %v", what, err)
			}
		}
	})
}

// Whatever befalls the requests, an object is right, and once all is well a Put brings it there.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := newFake()
		opt := small()
		opt.Parts, opt.Tries, opt.Delay = rapid.IntRange(1, 4).Draw(t, "parallel"), rapid.IntRange(1, 3).Draw(t, "tries"), time.Nanosecond
		data := rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, "data")
		lots := rapid.SliceOfN(rapid.IntRange(0, int(faults)-1), 0, 60).Draw(t, "faults")
		var next atomic.Int64
		f.fault = func(string) fault {
			if i := next.Add(1) - 1; i < int64(len(lots)) {
				return fault(lots[i])
			}
			return fine
		}
		checkpoint := &storetest.Checkpoint{}
		for range rapid.IntRange(1, 4).Draw(t, "puts") {
			if rapid.Bool().Draw(t, "restart with other settings") {
				opt.PartSize = rapid.Int64Range(4, 8).Draw(t, "part")
			}
			_ = putOnce(t, New(f, opt), f, data, checkpoint)
		}
		f.fault = nil
		p := New(f, opt)
		if err := putOnce(t, p, f, data, checkpoint); err != nil {
			t.Fatalf("all is well, and: %v", err)
		}
		f.expect(t, "k", data)
		if err := p.Clean(context.Background(), -1); err != nil {
			t.Fatal(err)
		}
		f.left(t)
		if len(f.objects) != 1 {
			t.Fatalf("%d objects", len(f.objects))
		}
	})
}

func putOnce(t *rapid.T, p *Putter, f *fake, data []byte, checkpoint store.Checkpoint) error {
	last := int64(-1)
	err := p.Put(context.Background(), "k", bytes.NewReader(data), store.PutOptions{Checkpoint: checkpoint, Progress: func(sent int64) {
		if sent < last {
			t.Errorf("progress went from %d to %d", last, sent)
		}
		last = sent
	}})
	if err == nil && last != int64(len(data)) {
		t.Errorf("progress ended at %d of %d", last, len(data))
	}
	if object, there := f.objects["k"]; there && !bytes.Equal(object, data) || !there && err == nil {
		t.Fatalf("the object is %q (%v), want %q; %v", object, there, data, err)
	}
	return err
}
