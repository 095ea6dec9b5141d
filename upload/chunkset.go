package upload

import (
	"encoding/json"
	"fmt"
	"math/bits"
	"slices"
	"strconv"
)

// Range is a run of chunks, first to last, both included. In JSON it is [first, last].
type Range struct{ First, Last int }

// String is "3" or "3-7".
func (r Range) String() string {
	if r.First == r.Last {
		return strconv.Itoa(r.First)
	}
	return fmt.Sprintf("%d-%d", r.First, r.Last)
}

// MarshalJSON writes [first, last].
func (r Range) MarshalJSON() ([]byte, error) {
	return fmt.Appendf(nil, "[%d,%d]", r.First, r.Last), nil
}

// UnmarshalJSON reads [first, last]: two numbers, no more and no fewer.
func (r *Range) UnmarshalJSON(b []byte) error {
	var pair []int
	if err := json.Unmarshal(b, &pair); err != nil {
		return err
	}
	if len(pair) != 2 {
		return Errorf(Invalid, "", "", "A range is [first, last].")
	}
	r.First, r.Last = pair[0], pair[1]
	return nil
}

// ChunkSet is a set of chunk indexes as a bitmap, bit 7 of byte 0 being chunk 0 (the order of
// Redis' SETBIT). The zero value is empty. It is not safe for concurrent use.
type ChunkSet struct {
	bits  []byte
	count int
}

// ChunkSetFromBytes takes over a bitmap as Bytes returns it.
func ChunkSetFromBytes(bitmap []byte) ChunkSet {
	s := ChunkSet{bits: bitmap}
	for _, b := range bitmap {
		s.count += bits.OnesCount8(b)
	}
	return s
}

// Bytes returns the bitmap; it must not be changed.
func (s *ChunkSet) Bytes() []byte { return s.bits }

// Len is the number of chunks in the set.
func (s *ChunkSet) Len() int { return s.count }

// Has reports whether chunk index is in the set.
func (s *ChunkSet) Has(index int) bool {
	return index >= 0 && index>>3 < len(s.bits) && s.bits[index>>3]&(0x80>>(index&7)) != 0
}

// Add puts chunk index (0 ≤ index < MaxChunks) in and reports whether it was not there before.
func (s *ChunkSet) Add(index int) bool {
	if index < 0 || index >= MaxChunks || s.Has(index) {
		return false
	}
	for index>>3 >= len(s.bits) {
		s.bits = append(s.bits, 0)
	}
	s.bits[index>>3] |= 0x80 >> (index & 7)
	s.count++
	return true
}

// Remove takes chunk index out and reports whether it was there.
func (s *ChunkSet) Remove(index int) bool {
	if !s.Has(index) {
		return false
	}
	s.bits[index>>3] &^= 0x80 >> (index & 7)
	s.count--
	return true
}

// Last is the highest index in the set, -1 if it is empty.
func (s *ChunkSet) Last() int {
	for i, b := range slices.Backward(s.bits) {
		if b != 0 {
			return i<<3 + 7 - bits.TrailingZeros8(b)
		}
	}
	return -1
}

// Clone returns a copy that shares nothing with s.
func (s *ChunkSet) Clone() ChunkSet {
	return ChunkSet{bits: slices.Clone(s.bits), count: s.count}
}

// Missing lists the chunks below count that are not in the set, as ranges in order. It is never
// nil, so that it is [] in JSON.
func (s *ChunkSet) Missing(count int) []Range {
	missing := []Range{}
	for i := 0; i < count; {
		if i&7 == 0 && i>>3 < len(s.bits) && s.bits[i>>3] == 0xff {
			i += 8 // a full byte at a step: status of 10,000 chunks must be cheap
			continue
		}
		if s.Has(i) {
			i++
			continue
		}
		first := i
		for i < count && !s.Has(i) {
			i++
		}
		missing = append(missing, Range{first, i - 1})
	}
	return missing
}
