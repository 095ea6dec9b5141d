package upload

import (
	"crypto/sha1" // the look-up key for instant upload; identity adds Root
	"crypto/sha256"
	"encoding/hex"
	"fmt"
)

// HintLength is how much of a file's beginning the hint covers: 128 KiB.
const HintLength = 128 << 10

// SHA1 is the digest by which content is looked up. It is never trusted as identity: see Root.
type SHA1 [sha1.Size]byte

func (d SHA1) String() string { return hex.EncodeToString(d[:]) }

// IsZero reports whether the digest is not set.
func (d SHA1) IsZero() bool { return d == SHA1{} }

// MarshalText writes lower-case hex.
func (d SHA1) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads hex of either case.
func (d *SHA1) UnmarshalText(text []byte) error { return decodeHex(d[:], text, "SHA-1") }

// ParseSHA1 reads 40 hex digits.
func ParseSHA1(s string) (d SHA1, err error) {
	err = d.UnmarshalText([]byte(s))
	return d, err
}

// SumSHA1 digests data at once.
func SumSHA1(data []byte) SHA1 { return sha1.Sum(data) }

// Root is the Merkle root that, with size, is a blob's identity: see TreeHasher.
type Root [sha256.Size]byte

func (r Root) String() string { return hex.EncodeToString(r[:]) }

// IsZero reports whether the root is not known yet.
func (r Root) IsZero() bool { return r == Root{} }

// MarshalText writes lower-case hex.
func (r Root) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads hex of either case.
func (r *Root) UnmarshalText(text []byte) error { return decodeHex(r[:], text, "root") }

func decodeHex(dst, text []byte, what string) error {
	if len(text) != hex.EncodedLen(len(dst)) {
		return Errorf(Invalid, "", "", "A %s has %d hex digits, not %d. Send all of them.", what, hex.EncodedLen(len(dst)), len(text))
	}
	if _, err := hex.Decode(dst, text); err != nil {
		return &Error{Kind: Invalid, Detail: fmt.Sprintf("A %s consists of hex digits. Send it so.", what), Err: err}
	}
	return nil
}
