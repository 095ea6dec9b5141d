package disk_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"gantry/chunkstore"
	"gantry/chunkstore/chunkstoretest"
	"gantry/chunkstore/disk"
	"gantry/internal/vfs"
	"gantry/upload"
)

// benchDir is in memory where there is such a place, so that the disk is not what is measured.
func benchDir(b *testing.B) string {
	b.Helper()
	if dir, err := os.MkdirTemp("/dev/shm", "disk-bench"); err == nil {
		b.Cleanup(func() { _ = os.RemoveAll(dir) })
		return dir
	}
	return b.TempDir()
}

func benchStaging(b *testing.B) *disk.Staging {
	b.Helper()
	fsys, err := vfs.OpenOS(benchDir(b))
	if err != nil {
		b.Fatal(err)
	}
	s, err := disk.Open(fsys, disk.Options{BootID: "boot"})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := s.Close(); err != nil {
			b.Error(err)
		}
		_ = fsys.Close()
	})
	return s
}

// cpuPerGB reports the processor time of the whole process per GB that was taken in.
func cpuPerGB(b *testing.B, bytes int64) func() {
	b.Helper()
	used := func() float64 {
		var ru syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &ru); err != nil {
			b.Fatal(err)
		}
		return float64(ru.Utime.Nano()+ru.Stime.Nano()) / 1e9
	}
	before := used()
	return func() { b.ReportMetric((used()-before)/(float64(bytes)*float64(b.N)/1e9), "cpu-s/GB") }
}

// BenchmarkWriteChunk takes a file of 256 MiB in, from init to seal.
func BenchmarkWriteChunk(b *testing.B) {
	const size = 256 << 20
	content := chunkstoretest.Bytes(size, 1)
	for _, chunk := range []int64{1 << 20, 8 << 20} {
		for _, lanes := range []int{1, 4} {
			b.Run(fmt.Sprintf("chunk=%dMiB/lanes=%d", chunk>>20, lanes), func(b *testing.B) {
				s := benchStaging(b)
				b.SetBytes(size)
				b.ReportAllocs()
				report := cpuPerGB(b, size)
				for b.Loop() {
					takeIn(b, s, content, chunk, lanes)
				}
				report()
			})
		}
	}
}

func takeIn(b *testing.B, s *disk.Staging, content []byte, chunk int64, lanes int) {
	b.Helper()
	spec := chunkstoretest.NewSpec(int64(len(content)), chunk)
	if err := s.Create(b.Context(), spec); err != nil {
		b.Fatal(err)
	}
	var next atomic.Int64
	var wg sync.WaitGroup
	for range lanes {
		wg.Go(func() {
			for {
				i := int(next.Add(1) - 1)
				p := chunkstoretest.Chunk(content, chunk, i)
				if len(p) == 0 {
					return
				}
				if err := s.WriteChunk(b.Context(), spec.ID, i, chunkstoretest.BodyOf(p)); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if _, err := s.Seal(b.Context(), spec.ID, upload.UnknownSize); err != nil {
		b.Fatal(err)
	}
	if err := s.Discard(b.Context(), spec.ID); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkWriteWhole100KB takes small files in over 64 connections at once.
func BenchmarkWriteWhole100KB(b *testing.B) {
	const size = 100 << 10
	content := chunkstoretest.Bytes(size, 2)
	s := benchStaging(b)
	b.SetBytes(size)
	b.ReportAllocs()
	report := cpuPerGB(b, size)
	b.SetParallelism(64 / runtime.GOMAXPROCS(0))
	b.RunParallel(func(pb *testing.PB) {
		reader := bytes.NewReader(nil)
		for pb.Next() {
			id := upload.NewUploadID("n0de")
			reader.Reset(content)
			if _, err := s.WriteWhole(b.Context(), id, chunkstore.Body{Reader: io.Reader(reader), Length: size}, size); err != nil {
				b.Error(err)
				return
			}
			if err := s.Discard(b.Context(), id); err != nil {
				b.Error(err)
				return
			}
		}
	})
	report()
}

// BenchmarkCreate opens uploads over 64 connections at once.
func BenchmarkCreate(b *testing.B) {
	s := benchStaging(b)
	b.ReportAllocs()
	b.SetParallelism(64 / runtime.GOMAXPROCS(0))
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := s.Create(b.Context(), chunkstoretest.NewSpec(1<<30, 8<<20)); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// BenchmarkSnapshot10000Chunks is the status of the largest upload there can be.
func BenchmarkSnapshot10000Chunks(b *testing.B) {
	s := benchStaging(b)
	spec := chunkstoretest.NewSpec(2*upload.MaxChunks, 2)
	if err := s.Create(b.Context(), spec); err != nil {
		b.Fatal(err)
	}
	for i := 0; i < upload.MaxChunks; i += 2 { // as many ranges as there can be
		if err := s.WriteChunk(b.Context(), spec.ID, i, chunkstoretest.BodyOf([]byte("ab"))); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		u, err := s.Get(spec.ID)
		if err != nil || len(u.Missing()) != upload.MaxChunks/2 {
			b.Fatal(err)
		}
	}
}
