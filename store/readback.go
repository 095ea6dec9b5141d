package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"hash/crc64"
	"io"
	"sync"

	"golang.org/x/sync/errgroup"

	"gantry/upload"
)

// Of a read-back, bytes and number: how much one request asks for, and how many are under way. Each request costs
// the server more than its bytes do (BenchmarkReadBack in store/s3), but of a store that is far away, or gives each
// connection its share, several get more than one.
const (
	stripe      = 64 << 20
	streams     = 4
	readLookout = 256 << 10 // between two looks at the context; stays in the processor's cache
)

// ReadBack is what Verify does where a store has no checksum of its own: it reads the whole object, several ranges at
// a time, and compares its size and its CRC-32C. The other digests prove no more against faults, and cost many times as
// much. It needs 1 MiB, whatever the object.
func ReadBack(ctx context.Context, s Store, key string, want Digests) error {
	const op = "store.ReadBack"
	size, err := s.Size(ctx, key)
	if err != nil {
		return err
	}
	if size != want.Size {
		return Mismatch(op, key, fmt.Sprintf("%d bytes", want.Size), fmt.Sprintf("%d bytes", size))
	}
	crc, err := striped(ctx, s, key, size, stripe)
	if err != nil {
		return upload.Wrap(upload.Unavailable, op, key, err)
	}
	if crc != want.CRC32C {
		return Mismatch(op, key, fmt.Sprintf("crc32c %08x", want.CRC32C), fmt.Sprintf("crc32c %08x", crc))
	}
	return nil
}

// striped is the CRC-32C of the first size bytes, read in stripes.
func striped(ctx context.Context, s Store, key string, size, stripe int64) (uint32, error) {
	sums := make([]uint32, (size+stripe-1)/stripe)
	length := func(i int) int64 { return min(stripe, size-int64(i)*stripe) }
	group, reading := errgroup.WithContext(ctx)
	group.SetLimit(streams)
	for i := range sums {
		if reading.Err() != nil {
			break
		}
		group.Go(func() (err error) {
			sums[i], err = crcOf(reading, s, key, int64(i)*stripe, length(i))
			return err
		})
	}
	if err := errors.Join(group.Wait(), ctx.Err()); err != nil {
		return 0, err
	}
	var crc uint32
	for i, sum := range sums {
		crc = upload.CombineCRC32C(crc, sum, length(i))
	}
	return crc, nil
}

// crcOf is the CRC-32C of a range.
func crcOf(ctx context.Context, s Store, key string, offset, length int64) (uint32, error) {
	sum := crc32.New(upload.Castagnoli)
	err := readRange(ctx, s, key, offset, length, sum)
	return sum.Sum32(), err
}

var lookouts = sync.Pool{New: func() any { return new([readLookout]byte) }}

// readRange writes the bytes of a range to w, which never fails.
func readRange(ctx context.Context, s Store, key string, offset, length int64, w io.Writer) (err error) {
	body, err := s.Open(ctx, key, offset, length)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, body.Close()) }()
	buffer := lookouts.Get().(*[readLookout]byte)
	defer lookouts.Put(buffer)
	for left := length; left > 0; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := io.ReadFull(body, buffer[:min(readLookout, left)])
		_, _ = w.Write(buffer[:n])
		if left -= int64(n); err != nil {
			return upload.Wrap(upload.Unavailable, "store.Read", key, fmt.Errorf("the object ends %d bytes early: %w", left, err))
		}
	}
	return nil
}

// Of reading in order, bytes and number: how much is asked for at a time, and how many requests are under way besides
// the one whose bytes are being used.
const (
	readBlock = 8 << 20
	readAhead = 3
)

// ReadInOrder reads the first size bytes of an object and writes them to w, which never fails, a block at a time, while the
// next ones are on their way. It needs 32 MiB, whatever the object.
func ReadInOrder(ctx context.Context, s Store, key string, size int64, w io.Writer) error {
	err := inOrder(ctx, size, func(ctx context.Context, offset int64, block []byte) error {
		return readRange(ctx, s, key, offset, int64(len(block)), bytes.NewBuffer(block[:0]))
	}, w.Write)
	return upload.Wrap(upload.Unavailable, "store.ReadInOrder", key, err)
}

// inOrder reads size bytes in blocks, some of them ahead, and hands them on one after the other.
func inOrder(ctx context.Context, size int64, read func(ctx context.Context, offset int64, block []byte) error, use func(block []byte) (int, error)) error {
	type job struct {
		offset int64
		block  []byte
		done   chan struct{} // closed when block is filled
	}
	group, ctx := errgroup.WithContext(ctx)
	queue := make(chan *job, readAhead) // in order
	free := make(chan []byte, readAhead+1)
	for range min(readAhead+1, (size+readBlock-1)/readBlock) {
		free <- make([]byte, min(readBlock, size))
	}
	group.Go(func() error {
		defer close(queue)
		for offset := int64(0); offset < size; offset += readBlock {
			var block []byte
			select {
			case <-ctx.Done():
				return ctx.Err()
			case block = <-free:
			}
			j := &job{offset, block[:min(readBlock, size-offset)], make(chan struct{})}
			group.Go(func() error {
				err := read(ctx, j.offset, j.block)
				if err == nil {
					close(j.done)
				}
				return err
			})
			queue <- j // there is room: as many as there are blocks
		}
		return nil
	})
	group.Go(func() error {
		for j := range queue {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-j.done:
			}
			if _, err := use(j.block); err != nil {
				return err
			}
			free <- j.block[:cap(j.block)]
		}
		return nil
	})
	return group.Wait()
}

// Digester computes Digests of what is written to it; made by NewDigester.
type Digester struct {
	digests Digests
	tree    upload.TreeHasher
	crc64   bool
	sum64   uint64
}

var ecma = crc64.MakeTable(crc64.ECMA)

// NewDigester returns a Digester; with CRC-64, which costs more time than the CRC-32C, only if it is asked for.
func NewDigester(withCRC64 bool) *Digester { return &Digester{crc64: withCRC64} }

// Write takes the next bytes in. It never fails.
func (d *Digester) Write(p []byte) (int, error) {
	d.digests.Size += int64(len(p))
	d.digests.CRC32C = crc32.Update(d.digests.CRC32C, upload.Castagnoli, p)
	if d.crc64 {
		d.sum64 = crc64.Update(d.sum64, ecma, p)
	}
	return d.tree.Write(p)
}

// Sum returns the digests of all that was written. Nothing may be written afterwards.
func (d *Digester) Sum() Digests {
	got := d.digests
	got.Root = d.tree.Root()
	if d.crc64 {
		got.CRC64 = &d.sum64
	}
	return got
}

// Compare returns upload.DigestMismatch, in words, if got are not the digests wanted.
func (d Digests) Compare(op, key string, got Digests) error {
	switch {
	case got.Size != d.Size:
		return Mismatch(op, key, fmt.Sprintf("%d bytes", d.Size), fmt.Sprintf("%d bytes", got.Size))
	case got.CRC32C != d.CRC32C:
		return Mismatch(op, key, fmt.Sprintf("crc32c %08x", d.CRC32C), fmt.Sprintf("crc32c %08x", got.CRC32C))
	case got.CRC64 != nil && d.CRC64 != nil && *got.CRC64 != *d.CRC64:
		return Mismatch(op, key, fmt.Sprintf("crc64 %016x", *d.CRC64), fmt.Sprintf("crc64 %016x", *got.CRC64))
	case got.Root != d.Root:
		return Mismatch(op, key, "root "+d.Root.String(), "root "+got.Root.String())
	}
	return nil
}

// Mismatch is the error that Verify returns when a store has other bytes than it should.
func Mismatch(op, key, want, got string) error {
	return &upload.Error{
		Op: op, Kind: upload.DigestMismatch, ID: key, Want: want, Got: got,
		Detail: fmt.Sprintf("The object in the store has %s, not %s.", got, want),
	}
}
