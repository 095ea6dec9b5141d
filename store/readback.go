package store

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"hash/crc64"
	"io"

	"golang.org/x/sync/errgroup"

	"gantry/upload"
)

// Of a read-back, bytes and number: how much is asked for at a time, and how many requests are under way besides the
// one whose bytes are being digested. A gateway on the same machine is read somewhat faster by one request (BenchmarkReadBack
// in store/s3), but of a store that is far away, or gives each connection its share, several get more. Smaller blocks
// cost the gateway more.
const (
	readBlock   = 8 << 20
	readAhead   = 3
	readLookout = 64 << 10 // between two looks at the context
)

// ReadBack is what Verify does where a store has no checksum of its own: it reads the object from its first
// byte to its last, several ranges at a time, and compares: the CRCs, and the root if want has one. It needs 32 MiB,
// whatever the object.
func ReadBack(ctx context.Context, s Store, key string, want Digests) error {
	const op = "store.ReadBack"
	size, err := s.Size(ctx, key)
	if err != nil {
		return err
	}
	if size != want.Size {
		return Mismatch(op, key, fmt.Sprintf("%d bytes", want.Size), fmt.Sprintf("%d bytes", size))
	}
	d := NewDigester(want.CRC64 != nil)
	d.rootless = want.Root.IsZero()
	if err := ReadInOrder(ctx, s, key, size, d); err != nil {
		return err
	}
	return want.Compare(op, key, d.Sum())
}

// ReadInOrder reads the first size bytes of an object and writes them to w, a block at a time, while the next ones
// are on their way. It needs about 16 MiB, whatever the object.
func ReadInOrder(ctx context.Context, s Store, key string, size int64, w io.Writer) error {
	err := inOrder(ctx, size, func(ctx context.Context, offset int64, block []byte) error {
		return readRange(ctx, s, key, offset, block)
	}, w.Write)
	return upload.Wrap(upload.Unavailable, "store.ReadInOrder", key, err)
}

// readRange fills block.
func readRange(ctx context.Context, s Store, key string, offset int64, block []byte) (err error) {
	body, err := s.Open(ctx, key, offset, int64(len(block)))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, body.Close()) }()
	for read := 0; read < len(block); {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := io.ReadFull(body, block[read:min(read+readLookout, len(block))])
		if read += n; err != nil {
			return upload.Wrap(upload.Unavailable, "store.ReadInOrder", key, fmt.Errorf("the object ends %d bytes early: %w", len(block)-read, err))
		}
	}
	return nil
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
	digests  Digests
	tree     upload.TreeHasher
	rootless bool // the root is not wanted, which is what takes the time
	crc64    bool
	sum64    uint64
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
	if d.rootless {
		return len(p), nil
	}
	return d.tree.Write(p)
}

// Sum returns the digests of all that was written. Nothing may be written afterwards.
func (d *Digester) Sum() Digests {
	got := d.digests
	if !d.rootless {
		got.Root = d.tree.Root()
	}
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
