package s3

import (
	"bytes"
	"hash/crc32"
	"io"
	"testing"

	"gantry/internal/testenv"
	"gantry/store"
	"gantry/store/storetest"
	"gantry/upload"
)

// BenchmarkReadBack compares ReadBack with reading an object from its first byte to its last. store/readback.go's
// constants are chosen by it.
func BenchmarkReadBack(b *testing.B) {
	const size = 256 << 20
	s := open(b, newBucket(b, testenv.Address(b, testenv.Ceph)))
	data := storetest.Bytes(1, size)
	want := storetest.DigestsOf(data)
	if err := s.Put(b.Context(), "00/a", bytes.NewReader(data), store.PutOptions{}); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Delete(b.Context(), "00/a") })
	b.Run("one after the other", func(b *testing.B) {
		b.SetBytes(size)
		for b.Loop() {
			body, err := s.Open(b.Context(), "00/a", 0, -1)
			if err != nil {
				b.Fatal(err)
			}
			sum := crc32.New(upload.Castagnoli)
			_, err = io.CopyBuffer(struct{ io.Writer }{sum}, body, make([]byte, 256<<10))
			if err != nil || sum.Sum32() != want.CRC32C {
				b.Fatal(err)
			}
			_ = body.Close()
		}
	})
	b.Run("several at a time", func(b *testing.B) {
		b.SetBytes(size)
		for b.Loop() {
			if err := store.ReadBack(b.Context(), s, "00/a", want); err != nil {
				b.Fatal(err)
			}
		}
	})
}
