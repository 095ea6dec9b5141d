package transfer_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"gantry/chunkstore"
	"gantry/chunkstore/disk"
	"gantry/internal/vfs"
	"gantry/meta"
	"gantry/store"
	"gantry/store/local"
	"gantry/store/storetest"
	"gantry/transfer"
	"gantry/transfer/queue/memory"
	"gantry/upload"
)

// cpu is the processor time of this process so far.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// still is an outbox that costs nothing, so that the worker's own work is what is measured.
type still struct {
	meta.Outbox
	job meta.Job
	n   int64
}

func (s *still) Lease(_ context.Context, id, owner string, _, until time.Time) (meta.Job, error) {
	s.n++
	job := s.job
	job.Transfer.ID, job.Transfer.Lease = id, upload.Lease{Owner: owner, Epoch: 1, Until: until}
	job.Blob.SHA1 = upload.SHA1{byte(s.n), byte(s.n >> 8), byte(s.n >> 16)}
	return job, nil
}

func (s *still) SetRoot(context.Context, string, int64, upload.Root, time.Time) (meta.RootResult, error) {
	return meta.RootResult{}, nil
}

func (s *still) Renew(context.Context, string, int64, meta.Progress) error { return nil }

func (s *still) Stored(context.Context, string, int64, string, string, time.Time) error {
	return nil
}

// benchDir is on tmpfs where there is one: the disk is not what is measured.
func benchDir(b *testing.B) string {
	b.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "transfer-")
	if err != nil {
		return b.TempDir()
	}
	b.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// bench transfers blobs of one size from staging to a store on the same disk, one after the other.
// With copy the store does not learn of the staged file, as if it were on another disk.
func bench(b *testing.B, size int64, copying bool) {
	dir := benchDir(b)
	tree := func(name string) *vfs.OS {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o700); err != nil {
			b.Fatal(err)
		}
		tree := must(vfs.OpenOS(filepath.Join(dir, name)))(b)
		b.Cleanup(func() { _ = tree.Close() })
		return tree
	}
	staging := must(disk.Open(tree("staging"), disk.Options{}))(b)
	b.Cleanup(func() { _ = staging.Close() })
	var st store.Store = must(local.Open(tree("store"), "n1"))(b)
	if copying {
		st = copied{st}
	}
	data := storetest.Bytes(1, int(size))
	stageOne := func() string {
		id := upload.NewUploadID(node)
		must(staging.WriteWhole(b.Context(), id, chunkstore.Body{Reader: bytes.NewReader(data), Length: size}, size))(b)
		return id
	}
	outbox := &still{job: meta.Job{
		Transfer: upload.Transfer{BlobID: "b", Node: node, Store: storeName, Size: size},
		Blob:     upload.Blob{ID: "b", Size: size, CRC32C: storetest.DigestsOf(data).CRC32C, Node: node},
	}}
	w := transfer.NewWorker(transfer.Options{Node: node}, transfer.Deps{
		Outbox: outbox, Staging: staging, Stores: map[string]store.Store{storeName: st}, Queue: memory.New(),
	})
	b.SetBytes(size)
	b.ReportAllocs()
	n, began := 0, cpu(b)
	for b.Loop() {
		if n%50_000 == 0 { // a file has at most 65,000 names
			b.StopTimer()
			outbox.job.Blob.Staging = stageOne()
			b.StartTimer()
		}
		if err := w.Handle(b.Context(), "t", ignored); err != nil {
			b.Fatal(err)
		}
		n++
	}
	used := cpu(b) - began
	b.ReportMetric(float64(used.Microseconds())/float64(n), "cpu-µs/op")
	b.ReportMetric(used.Seconds()/(float64(n)*float64(size)/1e9), "cpu-s/GB")
}

// copied hides the file of contents.
type copied struct{ store.Store }

func (c copied) Put(ctx context.Context, key string, content store.Content, opt store.PutOptions) error {
	return c.Store.Put(ctx, key, struct{ store.Content }{content}, opt)
}

func (c copied) Verify(ctx context.Context, key string, want store.Digests) error {
	want.Source = nil
	return c.Store.Verify(ctx, key, want)
}

// BenchmarkTransferLocal is a large blob to a store on the same disk: one reading and a link.
func BenchmarkTransferLocal(b *testing.B) { bench(b, 1<<30, false) }

// BenchmarkTransferCopy is the same to another disk: reading, copying, reading back.
func BenchmarkTransferCopy(b *testing.B) { bench(b, 1<<30, true) }

// BenchmarkTransferSmall is small blobs, without the database.
func BenchmarkTransferSmall(b *testing.B) { bench(b, 100_000, false) }

// BenchmarkTransferEmpty is what a transfer costs besides its bytes.
func BenchmarkTransferEmpty(b *testing.B) { bench(b, 1, false) }
