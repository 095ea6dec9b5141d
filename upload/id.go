package upload

import (
	"crypto/rand"
	"encoding/base32"
	"encoding/binary"
	"strings"
	"time"
)

// idAlphabet keeps the order of the bytes in the order of the text (RFC 4648 "base32hex"), lower case.
var idAlphabet = base32.NewEncoding("0123456789abcdefghijklmnopqrstuv").WithPadding(base32.NoPadding)

const randomIDLen = 26 // 16 bytes in base32

// NewUploadID returns "<node>-<128 random bits>": a request for it can be routed to its node with
// no look-up, and it cannot be guessed.
func NewUploadID(node string) string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand, Go 1.24)
	return node + "-" + idAlphabet.EncodeToString(b[:])
}

// NewID returns an id for a row: 48 bits of time, so that new rows are neighbours in an index, and
// 80 random bits.
func NewID(now time.Time) string {
	var b [16]byte
	_, _ = rand.Read(b[6:])
	var ms [8]byte
	binary.BigEndian.PutUint64(ms[:], uint64(now.UnixMilli()))
	copy(b[:6], ms[2:])
	return idAlphabet.EncodeToString(b[:])
}

// NewNodeID returns a short name for a node, kept in its data directory from the first start on.
func NewNodeID() string {
	var b [5]byte
	_, _ = rand.Read(b[:])
	return idAlphabet.EncodeToString(b[:])
}

// ParseUploadID splits an upload's id. It refuses everything that this package did not make, so
// that an id is always safe as a part of a file name.
func ParseUploadID(id string) (node string, ok bool) {
	node, random, found := strings.Cut(id, "-")
	if !found || len(random) != randomIDLen || len(node) == 0 || len(node) > 16 || !isBase32(node) || !isBase32(random) {
		return "", false
	}
	return node, true
}

func isBase32(s string) bool {
	for i := range len(s) {
		if c := s[i]; !('0' <= c && c <= '9' || 'a' <= c && c <= 'v') {
			return false
		}
	}
	return true
}
