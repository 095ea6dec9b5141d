package disk

import (
	"crypto/sha1" // the field's look-up key, see upload.SHA1
	"encoding"
	"hash"

	"gantry/upload"
)

// hash returns a hasher that goes on where the prefix ends.
func (p *prefix) hash() (hash.Hash, error) {
	h := sha1.New()
	if p.n == 0 {
		return h, nil
	}
	return h, h.(encoding.BinaryUnmarshaler).UnmarshalBinary(p.state[:])
}

// extended returns the prefix that is longer by a chunk, h having taken its bytes.
func (p *prefix) extended(h hash.Hash, crc uint32, length int64) prefix {
	next := prefix{n: p.n + length, crc: upload.CombineCRC32C(p.crc, crc, length)}
	state, err := h.(encoding.BinaryAppender).AppendBinary(next.state[:0])
	if err != nil || len(state) != sha1StateSize {
		panic("crypto/sha1 no longer marshals its state as it did") // its form is part of Go's compatibility promise
	}
	return next
}

// sum is the SHA-1 of the prefix.
func (p *prefix) sum() (upload.SHA1, error) {
	h, err := p.hash()
	if err != nil {
		return upload.SHA1{}, err
	}
	return upload.SHA1(h.Sum(nil)), nil
}
