package disk

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"os"
	"sync"
	"sync/atomic"

	"gantry/chunkstore"
	"gantry/upload"
)

const (
	bufferSize = 256 << 10 // of what is read from a client at a time; measured: see BenchmarkWriteChunk
	flushStep  = 4 << 20   // after so many bytes write-back is begun
)

type buffer [bufferSize]byte

var buffers = sync.Pool{New: func() any { return new(buffer) }}

func getBuffer() *buffer { return buffers.Get().(*buffer) }

// target is what an intake writes to: a vfs.File, or what stands in for one.
type target interface {
	io.WriterAt
	Flush(off, n int64)
}

// intake is one body on its way into a file. A chunk of any length passes through one buffer, or two
// if it is hashed beside.
type intake struct {
	body     *chunkstore.Body
	length   int64 // -1: until EOF
	limit    int64 // of a body until EOF
	file     target
	off      int64     // in file
	sum      hash.Hash // takes all bytes in order; nil: not wanted
	progress *atomic.Int64
	stopped  func() bool // asked now and then
	first    func(p []byte)

	crc     uint32 // of the bytes so far
	n       int64  // their number
	flushed int64
}

// run takes the body in and checks its length and digests.
func (in *intake) run(ctx context.Context) error {
	buf := getBuffer()
	var beside *besideHasher
	if in.sum != nil && (in.length < 0 || in.length > bufferSize) {
		beside = newBesideHasher(in.sum)
	}
	err := in.pass(ctx, &buf, beside)
	if beside != nil {
		beside.close()
	}
	if buf != nil {
		buffers.Put(buf)
	}
	if err != nil {
		return err
	}
	return checkDigests(in.body, in.crc)
}

// pass moves the bytes. *buf is nil afterwards if the hasher has it.
func (in *intake) pass(ctx context.Context, buf **buffer, beside *besideHasher) error {
	for in.length < 0 || in.n < in.length {
		want := int64(bufferSize)
		if in.length >= 0 {
			want = min(want, in.length-in.n)
		}
		n, readErr := in.fill(ctx, (*buf)[:want])
		if readErr != nil && (!errors.Is(readErr, io.EOF) || in.length >= 0) {
			if in.stopped != nil && in.stopped() && ctx.Err() == nil {
				return errStopped
			}
			return bodyError(ctx, readErr)
		}
		if p := (*buf)[:n]; n > 0 {
			if in.length < 0 && in.n+int64(n) > in.limit {
				return upload.Errorf(upload.TooLarge, "", "", "The file is larger than this server takes: %d bytes at most. Send it in parts, or ask for a higher limit.", in.limit)
			}
			if beside == nil {
				if in.sum != nil {
					in.sum.Write(p)
				}
				if err := in.put(p); err != nil {
					return err
				}
			} else {
				beside.hash(*buf, n) // which reads p while put does
				*buf = nil
				if err := in.put(p); err != nil {
					return err
				}
				*buf = beside.other()
			}
		}
		if readErr != nil {
			break
		}
	}
	in.flush(0)
	return in.checkEnd()
}

// fill reads until p is full. io.EOF comes bare and only where p is not full.
func (in *intake) fill(ctx context.Context, p []byte) (n int, err error) {
	for n < len(p) {
		if err := ctx.Err(); err != nil {
			return n, err
		}
		if in.stopped != nil && in.stopped() {
			return n, errStopped
		}
		m, err := in.body.Read(p[n:])
		n += m
		if in.progress != nil {
			in.progress.Add(int64(m))
		}
		if err != nil && n < len(p) {
			return n, err
		}
	}
	return n, nil
}

// put sums and writes one buffer.
func (in *intake) put(p []byte) error {
	if in.n == 0 && in.first != nil {
		in.first(p)
	}
	in.crc = crc32.Update(in.crc, upload.Castagnoli, p)
	for _, check := range in.body.Checks {
		check.Hash.Write(p)
	}
	if _, err := in.file.WriteAt(p, in.off+in.n); err != nil {
		return upload.Wrap(diskKind(err), "", "", err)
	}
	in.n += int64(len(p))
	in.flush(flushStep)
	return nil
}

// flush begins write-back if at least step bytes wait for it.
func (in *intake) flush(step int64) {
	if waiting := in.n - in.flushed; waiting > 0 && waiting >= step {
		in.file.Flush(in.off+in.flushed, waiting)
		in.flushed = in.n
	}
}

// checkEnd refuses a body that goes on after its announced length.
func (in *intake) checkEnd() error {
	if in.length < 0 {
		return nil
	}
	var one [1]byte
	if n, _ := in.body.Read(one[:]); n > 0 {
		return upload.Errorf(upload.LongBody, "", "", "The body goes on after the %d bytes that were announced. Send it again, whole.", in.length)
	}
	return nil
}

// checkDigests compares what came with what was announced.
func checkDigests(body *chunkstore.Body, crc uint32) error {
	if body.CRC32C != nil && *body.CRC32C != crc {
		return mismatch(fmt.Sprintf("%08x", *body.CRC32C), fmt.Sprintf("%08x", crc))
	}
	for _, check := range body.Checks {
		if got := check.Hash.Sum(nil); !bytes.Equal(got, check.Want) {
			return mismatch(hex.EncodeToString(check.Want), hex.EncodeToString(got))
		}
	}
	return nil
}

func mismatch(want, got string) error {
	return &upload.Error{
		Kind: upload.DigestMismatch, Want: want, Got: got,
		Detail: "The bytes received are not those whose digest was announced. Send them again.",
	}
}

// errStopped ends a reception that another request takes over, or that nobody needs any more.
var errStopped = upload.Errorf(upload.Canceled, "", "", "Another request sends this chunk, or the upload ended. Look at its state.")

// bodyError classifies a failure to read what the client sends.
func bodyError(ctx context.Context, err error) error {
	_, classified := errors.AsType[*upload.Error](err)
	switch {
	case ctx.Err() != nil:
		return canceled(ctx)
	case classified:
		return err
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return &upload.Error{Kind: upload.ShortBody, Err: err, Detail: "The body ended before its announced length. Send it again, whole."}
	case errors.Is(err, os.ErrDeadlineExceeded):
		return &upload.Error{Kind: upload.Timeout, Err: err, Detail: "The body came too slowly. Send it again."}
	default:
		return upload.Wrap(upload.Canceled, "", "", err)
	}
}

// besideHasher hashes one buffer in a goroutine while its owner fills and writes the other.
type besideHasher struct {
	work chan besideWork
	free chan *buffer
	wg   sync.WaitGroup
}

type besideWork struct {
	buf *buffer
	n   int
}

func newBesideHasher(h hash.Hash) *besideHasher {
	b := &besideHasher{work: make(chan besideWork, 1), free: make(chan *buffer, 2)}
	b.free <- getBuffer()
	b.wg.Go(func() {
		for w := range b.work {
			h.Write(w.buf[:w.n])
			b.free <- w.buf
		}
	})
	return b
}

// hash takes a buffer over.
func (b *besideHasher) hash(buf *buffer, n int) { b.work <- besideWork{buf, n} }

// other waits for a buffer that may be filled.
func (b *besideHasher) other() *buffer { return <-b.free }

// close waits for the hasher, which has then taken all bytes in and gives its buffers back.
func (b *besideHasher) close() {
	close(b.work)
	b.wg.Wait()
	for len(b.free) > 0 {
		buffers.Put(<-b.free)
	}
}
