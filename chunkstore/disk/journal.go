package disk

import (
	"encoding/binary"
	"hash/crc32"
	"slices"
	"time"

	"gantry/upload"
)

// The journal of an upload says which chunks are there. It is append-only, of records of fixed size:
//
//	 0  type
//	 1  flags
//	 2  chunk index, 16 bits
//	 4  generation of the node (see boot.go)
//	 8  CRC-32C of the chunk
//	12  length of the chunk
//	16  time, Unix nanoseconds
//	24  SHA-1 state of the contiguous prefix, which ends with the prefix's length
//	120 CRC-32C of that prefix
//	124 CRC-32C of the upload's id, the record's number, and all of the above
//
// All numbers are big-endian. A record that was torn, flipped, misplaced, or written for another
// upload fails its CRC and is skipped: what it said is unknown, so the chunk is asked for again, and
// all others are compared with their CRCs before they are believed.
const (
	recordSize    = 128
	sha1StateSize = 96
)

type recordType uint8

const (
	recordChunk    recordType = 1 + iota // a chunk is there; with a state: hashed as it came in
	recordHash                           // how far the prefix is hashed
	recordDrop                           // a chunk is void
	recordVerified                       // all chunks so far were read and are right
	recordSealed                         // all is there and on stable storage; the state is the content's
	recordUnsealed                       // a sealed upload is open again
)

// flagDurable marks a chunk whose data was on stable storage before the record was written.
const flagDurable = 1

type record struct {
	kind       recordType
	durable    bool
	index      int
	generation uint32
	crc        uint32
	length     int64
	time       time.Time
	prefix     prefix
}

// prefix is the contiguous beginning of an upload that has been hashed. The zero value is the empty
// one.
type prefix struct {
	n     int64
	crc   uint32
	state [sha1StateSize]byte // crypto/sha1's, marshaled; meaningless while n is 0
}

func recordCRC(id string, number int64, b []byte) uint32 {
	var n [8]byte
	binary.BigEndian.PutUint64(n[:], uint64(number))
	crc := crc32.Update(0, upload.Castagnoli, []byte(id))
	crc = crc32.Update(crc, upload.Castagnoli, n[:])
	return crc32.Update(crc, upload.Castagnoli, b)
}

// appendTo appends the record as the journal of upload id has it at place number.
func (r *record) appendTo(b []byte, id string, number int64) []byte {
	start := len(b)
	var flags byte
	if r.durable {
		flags = flagDurable
	}
	b = append(b, byte(r.kind), flags)
	b = binary.BigEndian.AppendUint16(b, uint16(r.index))
	b = binary.BigEndian.AppendUint32(b, r.generation)
	b = binary.BigEndian.AppendUint32(b, r.crc)
	b = binary.BigEndian.AppendUint32(b, uint32(r.length))
	b = binary.BigEndian.AppendUint64(b, uint64(r.time.UnixNano()))
	b = append(b, r.prefix.state[:]...)
	b = binary.BigEndian.AppendUint32(b, r.prefix.crc)
	return binary.BigEndian.AppendUint32(b, recordCRC(id, number, b[start:]))
}

// parseRecord reads a record of recordSize bytes; false if it is not what appendTo wrote.
func parseRecord(b []byte, id string, number int64) (r record, ok bool) {
	if len(b) != recordSize || binary.BigEndian.Uint32(b[124:]) != recordCRC(id, number, b[:124]) {
		return record{}, false
	}
	r = record{
		kind:       recordType(b[0]),
		durable:    b[1]&flagDurable != 0,
		index:      int(binary.BigEndian.Uint16(b[2:])),
		generation: binary.BigEndian.Uint32(b[4:]),
		crc:        binary.BigEndian.Uint32(b[8:]),
		length:     int64(binary.BigEndian.Uint32(b[12:])),
		time:       time.Unix(0, int64(binary.BigEndian.Uint64(b[16:]))),
	}
	r.prefix.crc = binary.BigEndian.Uint32(b[120:])
	copy(r.prefix.state[:], b[24:120])
	if n := binary.BigEndian.Uint64(b[112:]); n > 0 && n <= uint64(upload.MaxSize) {
		r.prefix.n = int64(n)
		if _, err := r.prefix.hash(); err != nil {
			r.prefix = prefix{}
		}
	} else {
		r.prefix = prefix{}
	}
	return r, r.kind >= recordChunk && r.kind <= recordUnsealed
}

// replay is what a journal says about an upload.
type replay struct {
	size     int64 // the manifest's, or what a short chunk or the seal showed
	received upload.ChunkSet
	crcs     []uint32
	durable  upload.ChunkSet // those of received whose data is on stable storage
	prefix   prefix
	updated  time.Time // zero if no chunk ever came
	sealed   bool
	stale    bool  // chunks were written before a power cut and not looked at since
	damaged  bool  // records are missing in the middle
	records  int64 // where the next record goes
}

// suspect reports whether the chunks must be compared with their CRCs before they are believed.
func (r *replay) suspect() bool { return r.stale || r.damaged }

// replayJournal reads a journal. It accepts any bytes. What it cannot read it leaves out, and then
// nothing of the rest is believed unseen. generation is the node's present one: what was written in
// another may have been lost in a power cut.
func replayJournal(journal []byte, spec *upload.Spec, generation uint32) replay {
	r := replay{size: spec.Size}
	for number := int64(0); (number+1)*recordSize <= int64(len(journal)); number++ {
		rec, ok := parseRecord(journal[number*recordSize:(number+1)*recordSize], spec.ID, number)
		if !ok {
			continue
		}
		if r.records < number { // those before were damaged, and are not just the torn tail
			r.damaged = true
		}
		r.records = number + 1
		r.apply(&rec, spec, generation)
	}
	layout := upload.Layout{Size: r.size, ChunkSize: spec.ChunkSize}
	if !r.prefixHolds(layout) {
		r.prefix = prefix{}
	}
	if r.sealed && (r.prefix.n != r.size || r.received.Len() != layout.Count()) {
		r.sealed = false
	}
	return r
}

func (r *replay) apply(rec *record, spec *upload.Spec, generation uint32) {
	layout := upload.Layout{Size: r.size, ChunkSize: spec.ChunkSize}
	switch rec.kind {
	case recordChunk:
		r.applyChunk(rec, layout, generation)
	case recordHash:
		r.advance(&rec.prefix)
	case recordDrop:
		r.void(rec.index, layout)
		r.sealed = false
	case recordVerified:
		r.stale = rec.generation != generation && r.received.Len() > 0
	case recordSealed:
		if r.size < 0 { // all chunks are full ones
			if rec.prefix.n != int64(r.received.Len())*layout.ChunkSize {
				return
			}
			r.size = rec.prefix.n
		}
		// The data was synced before this record was written, whatever came after.
		r.sealed, r.stale, r.prefix = true, false, rec.prefix
		r.durable = r.received.Clone()
	case recordUnsealed:
		r.sealed = false
	}
}

func (r *replay) applyChunk(rec *record, layout upload.Layout, generation uint32) {
	if rec.length < 1 || rec.length > layout.ChunkSize || rec.index >= upload.MaxChunks {
		return
	}
	if r.size < 0 && rec.length < layout.ChunkSize {
		if rec.index < r.received.Last() {
			return
		}
		r.size = layout.Offset(rec.index) + rec.length
		layout.Size = r.size
	}
	if rec.index >= layout.Count() || rec.length != layout.Length(rec.index) {
		return
	}
	if r.received.Has(rec.index) { // the record that made it void is among the damaged ones
		r.void(rec.index, layout)
	}
	r.received.Add(rec.index)
	r.crcs = grow(r.crcs, rec.index)
	r.crcs[rec.index] = rec.crc
	r.updated = rec.time
	switch {
	case rec.durable:
		r.durable.Add(rec.index)
	case rec.generation != generation:
		r.stale = true
	}
	r.advance(&rec.prefix)
}

func (r *replay) advance(p *prefix) {
	if p.n > r.prefix.n {
		r.prefix = *p
	}
}

// void takes a chunk out, and with it a prefix that contains it.
func (r *replay) void(index int, layout upload.Layout) {
	r.received.Remove(index)
	r.durable.Remove(index)
	if layout.Offset(index) < r.prefix.n {
		r.prefix = prefix{}
	}
}

// prefixHolds reports whether the hashed prefix consists of whole chunks that are all there, with the
// CRCs that they have now.
func (r *replay) prefixHolds(layout upload.Layout) bool {
	var done int64
	var crc uint32
	for index := 0; done < r.prefix.n; index++ {
		if !r.received.Has(index) {
			return false
		}
		length := layout.Length(index)
		crc = upload.CombineCRC32C(crc, r.crcs[index], length)
		done += length
	}
	return done == r.prefix.n && crc == r.prefix.crc
}

// grow makes s long enough to have an element at index.
func grow(s []uint32, index int) []uint32 {
	if missing := index + 1 - len(s); missing > 0 {
		s = slices.Grow(s, missing)[:index+1]
	}
	return s
}
