package objectserver

import (
	"bytes"
	"crypto/md5" //nolint:gosec // the ETag of object stores
	"errors"
	"hash/crc64"
	"io"
	"os"
)

// inMemory is how large a body may be, bytes, before it is written to disk.
const inMemory = 256 << 10

// Blob is a body that was received. A large one is a file that has no name any more: it is gone with the last
// reader, also when the process is killed.
type Blob struct {
	Size  int64
	MD5   [md5.Size]byte
	CRC64 uint64

	data io.ReaderAt
}

var ecma = crc64.MakeTable(crc64.ECMA)

// Receive reads a body to its end. ErrTooLarge if it has more bytes than a part may have.
func (s *Storage) Receive(body io.Reader) (*Blob, error) {
	b := &Blob{}
	sum, crc := md5.New(), crc64.New(ecma)
	body = io.TeeReader(io.LimitReader(body, s.limits.MaxPart+1), io.MultiWriter(sum, crc))
	small, err := io.ReadAll(io.LimitReader(body, inMemory+1))
	if err != nil {
		return nil, err
	}
	b.Size, b.data = int64(len(small)), bytes.NewReader(small)
	if len(small) > inMemory {
		f, err := os.CreateTemp(s.dir, "blob-")
		if err != nil {
			return nil, err
		}
		b.Size, err = io.CopyBuffer(struct{ io.Writer }{f}, io.MultiReader(bytes.NewReader(small), body), make([]byte, inMemory))
		if err := errors.Join(err, os.Remove(f.Name())); err != nil {
			return nil, errors.Join(err, f.Close())
		}
		b.data = f // closed when nobody has it any more, as every os.File
	}
	if b.Size > s.limits.MaxPart {
		return nil, ErrTooLarge
	}
	b.MD5, b.CRC64 = [md5.Size]byte(sum.Sum(nil)), crc.Sum64()
	return b, nil
}

// Read returns a reader of length bytes of an object from offset on, which are there.
func (o *Object) Read(offset, length int64) io.Reader {
	var sections []io.Reader
	for _, b := range o.blobs {
		if n := min(b.Size-offset, length); n > 0 {
			sections = append(sections, io.NewSectionReader(b.data, offset, n))
			length -= n
			offset = 0
			continue
		}
		offset -= b.Size
	}
	return io.MultiReader(sections...)
}

// CombineCRC64 returns the CRC-64/XZ of two strings of bytes one after the other, of which it knows the CRCs, and the
// second one's length.
func CombineCRC64(first, second uint64, length int64) uint64 {
	// The CRC of a string followed by n zero bytes is its CRC times x to the power of 8n, modulo the polynomial. Here
	// bits are reflected: the highest is the coefficient of x to the power of 0.
	power := uint64(1) << 63
	for square := uint64(1) << 55; length > 0; length >>= 1 {
		if length&1 == 1 {
			power = multiply(power, square)
		}
		square = multiply(square, square)
	}
	return multiply(power, first) ^ second
}

func multiply(a, b uint64) uint64 {
	var product uint64
	for ; a != 0; a <<= 1 {
		if a>>63 == 1 {
			product ^= b
		}
		carry := b & 1
		b >>= 1
		if carry == 1 {
			b ^= crc64.ECMA
		}
	}
	return product
}
