//go:build ceph

package rados

import (
	"bytes"
	"fmt"
	"io"
	"syscall"
	"testing"
	"time"

	"gantry/store"
	"gantry/store/storetest"
)

// BenchmarkStore puts, verifies and reads 256 MiB. "CPU-s/GB" is what this process spends, not Ceph's.
func BenchmarkStore(b *testing.B) {
	data := storetest.Bytes(1, 256*mebi)
	want := storetest.DigestsOf(data)
	for _, size := range []int64{4, 8, 32} {
		opt := options(b)
		opt.ObjectSize = size * mebi
		s := open(b, opt)
		put := func() error { return s.Put(b.Context(), "a", bytes.NewReader(data), store.PutOptions{}) }
		for _, step := range []struct {
			name    string
			prepare func() error
			do      func() error
		}{
			{"put and verify", func() error { return s.Delete(b.Context(), "a") }, func() error {
				if err := put(); err != nil {
					return err
				}
				return s.Verify(b.Context(), "a", want)
			}},
			{"put", func() error { return s.Delete(b.Context(), "a") }, put},
			{"put again", put, put},
			{"verify", put, func() error { return s.Verify(b.Context(), "a", want) }},
			{"read back", put, func() error { return store.ReadBack(b.Context(), s, "a", want) }},
			{"read", put, func() error {
				r, err := s.Open(b.Context(), "a", 0, -1)
				if err != nil {
					return err
				}
				defer r.Close()
				_, err = io.Copy(io.Discard, r)
				return err
			}},
		} {
			b.Run(fmt.Sprintf("%s, objects of %d MiB", step.name, size), func(b *testing.B) {
				b.SetBytes(int64(len(data)))
				var spent time.Duration
				for b.Loop() {
					b.StopTimer()
					if err := step.prepare(); err != nil {
						b.Fatal(err)
					}
					b.StartTimer()
					before := cpu()
					if err := step.do(); err != nil {
						b.Fatal(err)
					}
					spent += cpu() - before
				}
				b.ReportMetric(spent.Seconds()/float64(b.N)/float64(len(data))*1e9, "CPU-s/GB")
			})
		}
	}
}

// cpu is what this process has used.
func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
