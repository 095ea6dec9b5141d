package client

import (
	"context"
	"crypto/sha1"
	"encoding"
	"hash"
	"hash/crc32"
	"sync"
	"time"

	"gantry/upload"
)

const (
	hashBuffer   = 1 << 20 // bytes read at a time: larger ones gain nothing
	saveInterval = 5 * time.Second
)

var buffers = sync.Pool{New: func() any { b := make([]byte, hashBuffer); return &b }}

// digest is what hashing a whole file gives.
type digest struct {
	sha1 upload.SHA1
	tree *upload.Tree // nil if it was not asked for, or the hashing was resumed
}

// hasher reads a file once, from front to end.
type hasher struct {
	src  *Source
	emit func(Event)
	// save keeps the state of the SHA-1 after so many bytes. It is called every few seconds.
	save func(state []byte, hashed int64)
}

// run hashes the whole source. With tree it starts at the beginning and gives what proofs need;
// otherwise it goes on from state, if there is one, where hashed bytes have been read.
func (h *hasher) run(ctx context.Context, tree bool, state []byte, hashed int64) (digest, error) {
	sum := sha1.New()
	if tree || !restore(sum, state) || hashed > h.src.size {
		sum, hashed = sha1.New(), 0
	}
	var leaves *upload.TreeHasher
	if tree {
		leaves = upload.NewTreeHasher()
	}
	if hashed > 0 {
		h.emit(Event{Kind: Hashed, Bytes: hashed})
	}
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	saved := time.Now()
	defer func() { h.snapshot(sum, hashed) }() // an interrupted process goes on from here
	for hashed < h.src.size {
		if err := context.Cause(ctx); err != nil {
			return digest{}, err
		}
		p := (*buf)[:min(hashBuffer, h.src.size-hashed)]
		if err := h.src.readFull(p, hashed); err != nil {
			return digest{}, err
		}
		_, _ = sum.Write(p) // a hash never fails
		if leaves != nil {
			_, _ = leaves.Write(p)
		}
		hashed += int64(len(p))
		h.emit(Event{Kind: Hashed, Bytes: int64(len(p))})
		if time.Since(saved) >= saveInterval {
			h.snapshot(sum, hashed)
			saved = time.Now()
		}
	}
	d := digest{sha1: upload.SHA1(sum.Sum(nil))}
	if leaves != nil {
		t := leaves.Sum()
		d.tree = &t
	}
	return d, nil
}

func (h *hasher) snapshot(sum hash.Hash, hashed int64) {
	if h.save == nil {
		return
	}
	if state, err := sum.(encoding.BinaryMarshaler).MarshalBinary(); err == nil {
		h.save(state, hashed)
	}
}

// restore reports whether sum goes on from state now.
func restore(sum hash.Hash, state []byte) bool {
	return len(state) > 0 && sum.(encoding.BinaryUnmarshaler).UnmarshalBinary(state) == nil
}

// hint is the SHA-1 of the beginning of the source.
func hint(src *Source) (upload.SHA1, error) {
	p := make([]byte, min(upload.HintLength, src.size))
	if err := src.readFull(p, 0); err != nil {
		return upload.SHA1{}, err
	}
	return upload.SumSHA1(p), nil
}

// chunkCRC reads a range of the source for its CRC-32C.
//
// The digest goes in a header before the body (servers need not take trailers), so the chunk is read
// twice: here, and again from the page cache when it is sent. The alternative, a buffer of a chunk's
// length per lane, costs up to 1 GiB each and saves one copy of memory.
func chunkCRC(ctx context.Context, src *Source, offset, length int64) (uint32, error) {
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	var crc uint32
	for end := offset + length; offset < end; {
		if err := context.Cause(ctx); err != nil {
			return 0, err
		}
		p := (*buf)[:min(hashBuffer, end-offset)]
		if err := src.readFull(p, offset); err != nil {
			return 0, err
		}
		crc = crc32.Update(crc, upload.Castagnoli, p)
		offset += int64(len(p))
	}
	return crc, nil
}
