package transfer_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"gantry/meta"
	"gantry/store"
	"gantry/store/memory"
	"gantry/store/storetest"
	"gantry/transfer"
	"gantry/upload"
)

// newDirectRig is a rig whose store takes what clients send by themselves.
func newDirectRig(t *testing.T) *rig {
	t.Helper()
	r := newRig(t)
	r.store = storetest.NewFaulty(memory.New())
	return r
}

// commitDirect makes a file of an object that a client has sent by itself, with the SHA-1 that it has announced.
func (r *rig) commitDirect(data []byte, announced upload.SHA1) upload.File {
	r.t.Helper()
	ctx, now := context.Background(), r.now()
	d := meta.DirectUpload{
		Spec:   upload.Spec{ID: upload.NewUploadID(node), Owner: "local", Name: "f", Size: int64(len(data)), ChunkSize: 1 << 20, CreatedAt: now},
		BlobID: upload.NewID(now), Store: storeName, MultipartID: "m", UpdatedAt: now,
	}
	d.ObjectKey = upload.DirectKeyFor(node, d.BlobID)
	if err := errors.Join(r.db.BeginDirect(ctx, d), r.memory().Put(ctx, d.ObjectKey, bytes.NewReader(data), store.PutOptions{})); err != nil {
		r.t.Fatal(err)
	}
	answer := must(r.db.CommitDirect(ctx, meta.Commit{
		UploadID: d.ID, Answer: true, File: upload.File{ID: upload.NewID(now), Owner: "local", Name: "f", CreatedAt: now},
		Sealed: upload.Sealed{Size: d.Size, SHA1: announced}, Node: node, AnswerUntil: now.Add(time.Hour),
	}))(r.t)
	return *answer.File
}

func (r *rig) memory() *memory.Store { return r.store.Store.(*memory.Store) }

// expectRead checks that all is known of a file's bytes, and that its object is where the client has put it.
func (r *rig) expectRead(f *upload.File, data []byte) {
	r.t.Helper()
	t, b, want := r.transfer(f), r.blob(f), storetest.DigestsOf(data)
	if t.State != upload.TransferStored || b.Undigested() || b.Store != storeName || b.ObjectKey != upload.DirectKeyFor(node, b.ID) {
		r.t.Errorf("transfer %+v\nblob %+v", t, b)
	}
	if b.Root != want.Root || b.CRC32C != want.CRC32C || b.SHA1 != upload.SumSHA1(data) || b.Hint != upload.SumSHA1(data[:min(upload.HintLength, len(data))]) {
		r.t.Errorf("the blob's digests are not those of its bytes: %+v", b)
	}
	if len(r.store.Puts()) > 0 {
		r.t.Errorf("the worker has put %v", r.store.Puts())
	}
}

func TestDirectUploadsAreRead(t *testing.T) {
	t.Parallel()
	r := newDirectRig(t)
	relay, _ := r.start(testOptions())
	for _, size := range []int{1, upload.HintLength - 1, upload.HintLength + 1, 1 << 20, 9<<20 + 17} {
		data := storetest.Bytes(uint64(size), size)
		announced := upload.SHA1{}
		if size%2 == 0 {
			announced = upload.SumSHA1(data)
		}
		f := r.commitDirect(data, announced)
		relay.Wake()
		if got := r.waitFor(&f, upload.TransferStored); got.Bytes != int64(size) || got.Attempts != 1 {
			t.Errorf("%+v", got)
		}
		r.expectRead(&f, data)
	}
}

// Whatever the worker is cut off after, another attempt ends it, with the same digests.
func TestDirectReadingIsCutOff(t *testing.T) {
	t.Parallel()
	for _, at := range []string{"SetDigests", "SetRoot", "Stored"} {
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			r := newDirectRig(t)
			data := storetest.Bytes(3, 5<<20)
			f := r.commitDirect(data, upload.SHA1{})
			var cut atomic.Bool
			r.outbox.hook(func(op string) error {
				if op == at && cut.CompareAndSwap(false, true) { // as of a process that was killed, nothing more comes of it
					return upload.Errorf(upload.Conflict, "test", "", "Another worker has the lease.")
				}
				return nil
			})
			w := r.worker(testOptions())
			if err := w.Handle(t.Context(), f.Transfer.ID, ignored); err != nil {
				t.Fatal(err)
			}
			if got := r.transfer(&f); got.State == upload.TransferStored {
				t.Fatal("not cut off")
			}
			r.shift.Store(int64(2 * time.Minute)) // its lease is over
			if err := w.Handle(t.Context(), f.Transfer.ID, ignored); err != nil {
				t.Fatal(err)
			}
			r.expectRead(&f, data)
		})
	}
}

// A store that fails is asked again; what it has lost is not given up by the worker alone.
func TestDirectReadingWithTheStoreAway(t *testing.T) {
	t.Parallel()
	r := newDirectRig(t)
	data := storetest.Bytes(4, 5<<20)
	f := r.commitDirect(data, upload.SHA1{})
	r.store.SetDown(true)
	opt := testOptions()
	opt.MaxFailures = 3
	r.start(opt)
	r.eventually("many attempts", func() bool { return r.transfer(&f).Attempts > 5 })
	r.store.SetDown(false)
	r.waitFor(&f, upload.TransferStored)
	r.expectRead(&f, data)

	gone := r.commitDirect(data[1:], upload.SHA1{})
	if err := r.memory().Delete(t.Context(), upload.DirectKeyFor(node, gone.BlobID)); err != nil {
		t.Fatal(err)
	}
	if got := r.waitFor(&gone, upload.TransferDead); !strings.Contains(got.LastError, "does not have the object") {
		t.Errorf("%+v", got)
	}
	if b := r.blob(&gone); b.State != upload.BlobLive {
		t.Errorf("%+v", b)
	}
}

// What is not what was announced is lost, if the store says the same twice.
func TestDirectUploadThatIsAnother(t *testing.T) {
	t.Parallel()
	r := newDirectRig(t)
	data := storetest.Bytes(5, 5<<20)
	f := r.commitDirect(data, upload.SumSHA1(data[1:]))
	short := r.commitDirect(data, upload.SHA1{})
	r.memory().Alter(upload.DirectKeyFor(node, short.BlobID), func(data []byte) []byte { return data[1:] })
	r.start(testOptions())
	for reason, f := range map[string]*upload.File{upload.SumSHA1(data).String(): &f, "bytes; 5242880 were sent": &short} {
		if got := r.waitFor(f, upload.TransferDead); !strings.Contains(got.LastError, reason) {
			t.Errorf("%+v", got)
		}
		if b := r.blob(f); b.State != upload.BlobLost || !b.Root.IsZero() {
			t.Errorf("%+v", b)
		}
	}
}

// flaky is a store of which the first reading is damaged on its way.
type flaky struct {
	store.Store
	opened atomic.Int64
}

func (s *flaky) Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	r, err := s.Store.Open(ctx, key, offset, length)
	if err != nil || s.opened.Add(1) > 1 {
		return r, err
	}
	data, err := io.ReadAll(r)
	data[0] ^= 1
	return io.NopCloser(bytes.NewReader(data)), errors.Join(err, r.Close())
}

func TestDirectUploadThatIsReadWrongly(t *testing.T) {
	t.Parallel()
	r := newDirectRig(t)
	data := storetest.Bytes(6, 1<<20)
	f := r.commitDirect(data, upload.SumSHA1(data))
	deps := r.deps()
	deps.Stores = map[string]store.Store{storeName: &flaky{Store: r.store}}
	r.startWith(testOptions(), deps)
	if got := r.waitFor(&f, upload.TransferStored); got.Attempts != 2 {
		t.Errorf("%+v", got)
	}
	r.expectRead(&f, data)
}

// blocked is a store whose readers wait.
type blocked struct {
	store.Store
	reading, wait chan struct{}
}

func (s *blocked) Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	close(s.reading)
	<-s.wait
	return s.Store.Open(ctx, key, offset, length)
}

// Who has lost the lease while reading changes nothing any more.
func TestDirectReadingLosesItsLease(t *testing.T) {
	t.Parallel()
	r := newDirectRig(t)
	f := r.commitDirect(storetest.Bytes(7, 1<<20), upload.SHA1{})
	st := &blocked{r.store, make(chan struct{}), make(chan struct{})}
	deps := r.deps()
	deps.Stores = map[string]store.Store{storeName: st}
	opt := testOptions()
	opt.Heartbeat = time.Hour
	w := transfer.NewWorker(opt.Options, deps)
	var working errgroup.Group
	working.Go(func() error { return w.Handle(context.Background(), f.Transfer.ID, ignored) })
	<-st.reading
	r.shift.Store(int64(2 * time.Minute))
	job := must(r.db.Lease(t.Context(), f.Transfer.ID, "another", r.now(), r.now().Add(time.Minute)))(t)
	before := r.blob(&f)
	close(st.wait)
	if err := working.Wait(); err != nil {
		t.Fatal(err)
	}
	if after := r.blob(&f); after != before {
		t.Errorf("%+v became %+v", before, after)
	}
	if got := r.transfer(&f); got != job.Transfer {
		t.Errorf("%+v became %+v", job.Transfer, got)
	}
}
