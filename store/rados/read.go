//go:build ceph

package rados

import (
	"context"
	"errors"
	"io"
	"io/fs"

	"gantry/upload"
)

// A reader asks for so much at a time, bytes, and for so many of them before they are used.
const (
	readBlock = mebi
	readAhead = 3
)

// reader reads a range of an object.
type reader struct {
	fetch func(offset int64, into []byte) <-chan result[struct{}]
	await func(<-chan result[struct{}]) error

	next, end int64   // of the object: what has not been asked for
	queue     []block // what has, in order
	using     block
	left      []byte // of the block that is being used
	err       error
}

// block is a part of an object that is being filled.
type block struct {
	bytes []byte
	done  <-chan result[struct{}]
}

// Open reads a part of an object. If it is replaced meanwhile by other bytes, or deleted, reading fails.
func (s *Store) Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	c, h, err := s.head(ctx, "rados.Open", key)
	if err != nil {
		return nil, err
	}
	rest := h.Size - offset
	if offset < 0 || rest < 0 || length < -1 {
		return nil, upload.Errorf(upload.BadRange, "rados.Open", key, "The object has %d bytes.", h.Size)
	}
	if length == -1 || length > rest {
		length = rest
	}
	r := &reader{next: offset, end: offset + length}
	r.fetch = func(offset int64, into []byte) <-chan result[struct{}] {
		return start(s, none(func() error { return c.read(key, h, offset, into) }))
	}
	r.await = func(done <-chan result[struct{}]) error {
		_, err := await(ctx, done)
		return s.classify("rados.Read", key, err)
	}
	r.ask(nil)
	return r, nil
}

// ask asks for what comes next. spare is a block that is not used any more.
func (r *reader) ask(spare []byte) {
	for len(r.queue) < readAhead && r.next < r.end {
		size := min(readBlock-r.next%readBlock, r.end-r.next)
		if int64(cap(spare)) < size {
			spare = make([]byte, min(readBlock, r.end-r.next))
		}
		r.queue = append(r.queue, block{spare[:size], r.fetch(r.next, spare[:size])})
		r.next += size
		spare = nil
	}
}

func (r *reader) Read(p []byte) (int, error) {
	if len(r.left) == 0 && r.err == nil {
		if len(r.queue) == 0 {
			return 0, io.EOF
		}
		spare := r.using.bytes
		r.using, r.queue = r.queue[0], r.queue[1:]
		if r.err = r.await(r.using.done); r.err == nil {
			r.left = r.using.bytes
			r.ask(spare)
		}
	}
	if len(r.left) == 0 {
		return 0, r.err
	}
	n := copy(p, r.left)
	r.left = r.left[n:]
	return n, nil
}

func (r *reader) Close() error {
	r.err, r.left = fs.ErrClosed, nil
	return nil
}

// errShort is of a data object that ends too early.
var errShort = errors.New("the data object is too short")

// read fills block with a part of an object. If its data has gone because the same bytes were put again it goes on
// with those.
func (c *cluster) read(key string, h head, offset int64, block []byte) error {
	for {
		err := c.readData(key, h, offset, block)
		if err == nil || !lost(err) {
			return err
		}
		now, headErr := c.head(key)
		switch {
		case headErr != nil:
			return headErr
		case now.Generation == h.Generation:
			return &upload.Error{
				Op: "rados.Read", Kind: upload.Unavailable, ID: key, Detail: "A part of the object is missing or damaged in the Ceph pool.", Err: err,
			}
		case now.Size != h.Size || now.CRC32C != h.CRC32C:
			return upload.Errorf(upload.Unavailable, "rados.Read", key, "The object was replaced while it was read. Read it again.")
		}
		h = now
	}
}

// readData fills block from the data objects of one generation.
func (c *cluster) readData(key string, h head, offset int64, block []byte) error {
	for len(block) > 0 {
		i, at := offset/h.Object, offset%h.Object
		size := min(h.length(i)-at, int64(len(block)))
		n, err := c.data.Read(h.name(key, i), block[:size], uint64(at))
		if err != nil {
			return err
		}
		if int64(n) < size {
			return errShort
		}
		offset, block = offset+size, block[size:]
	}
	return nil
}
