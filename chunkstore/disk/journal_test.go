package disk

import (
	"bytes"
	"crypto/sha1"
	"hash/crc32"
	"slices"
	"testing"
	"time"

	"gantry/upload"
)

const testID = "n0de-00000000000000000000000000"

func testSpec(size int64) *upload.Spec {
	return &upload.Spec{ID: testID, Owner: "local", Name: "n", Size: size, ChunkSize: 4, CreatedAt: time.Unix(1, 0).UTC()}
}

// journalOf writes records one after the other.
func journalOf(records ...record) []byte {
	var b []byte
	for i := range records {
		b = records[i].appendTo(b, testID, int64(i))
	}
	return b
}

// prefixOf hashes chunks as they are acknowledged.
func prefixOf(chunks ...string) prefix {
	var p prefix
	for _, chunk := range chunks {
		h, err := p.hash()
		if err != nil {
			panic(err)
		}
		h.Write([]byte(chunk))
		p = p.extended(h, crc32.Checksum([]byte(chunk), upload.Castagnoli), int64(len(chunk)))
	}
	return p
}

func chunkRecord(index int, chunk string) record {
	return record{kind: recordChunk, index: index, length: int64(len(chunk)), crc: crc32.Checksum([]byte(chunk), upload.Castagnoli), time: time.Unix(5, 7), generation: 1}
}

func TestPrefix(t *testing.T) {
	t.Parallel()
	p := prefixOf("abcd", "efgh", "i")
	sum, err := p.sum()
	if err != nil || sum != sha1.Sum([]byte("abcdefghi")) || p.crc != crc32.Checksum([]byte("abcdefghi"), upload.Castagnoli) || p.n != 9 {
		t.Errorf("sum %v, %v, n %d", sum, err, p.n)
	}
	empty := prefix{}
	if sum, err := empty.sum(); err != nil || sum != sha1.Sum(nil) {
		t.Errorf("empty: %v, %v", sum, err)
	}
}

func TestRecord(t *testing.T) {
	t.Parallel()
	want := chunkRecord(7, "abcd")
	want.durable, want.generation, want.prefix = true, 0xdeadbeef, prefixOf("abcd")
	b := want.appendTo(nil, testID, 3)
	if len(b) != recordSize {
		t.Fatalf("%d bytes", len(b))
	}
	got, ok := parseRecord(b, testID, 3)
	if !ok || got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	for name, read := range map[string]func() bool{
		"another place":  func() bool { _, ok := parseRecord(b, testID, 2); return ok },
		"another upload": func() bool { _, ok := parseRecord(b, "n0de-00000000000000000000000001", 3); return ok },
		"cut":            func() bool { _, ok := parseRecord(b[:recordSize-1], testID, 3); return ok },
		"zeros":          func() bool { _, ok := parseRecord(make([]byte, recordSize), testID, 3); return ok },
	} {
		if read() {
			t.Errorf("%s is read as a record", name)
		}
	}
	for bit := range recordSize * 8 {
		flipped := slices.Clone(b)
		flipped[bit/8] ^= 1 << (bit % 8)
		if _, ok := parseRecord(flipped, testID, 3); ok {
			t.Fatalf("flipped bit %d goes unnoticed", bit)
		}
	}
}

func TestReplay(t *testing.T) {
	t.Parallel()
	hashed := func(r record, p prefix) record { r.prefix = p; return r }
	durable := func(r record) record { r.durable = true; return r }
	generation := func(r record, g uint32) record { r.generation = g; return r }
	kind := func(k recordType, index int) record { return record{kind: k, index: index, generation: 1} }
	lost := record{kind: 99} // any record that cannot be read
	for _, c := range []struct {
		name     string
		size     int64
		records  []record
		want     []upload.Range // missing
		wantSize int64
		hashed   int64
		sealed   bool
		suspect  bool
	}{
		{name: "empty", size: 9, want: []upload.Range{{First: 0, Last: 2}}, wantSize: 9},
		{name: "in any order", size: 9, records: []record{chunkRecord(2, "i"), chunkRecord(0, "abcd")}, want: []upload.Range{{First: 1, Last: 1}}, wantSize: 9},
		{name: "lengths that cannot be", size: 9, records: []record{chunkRecord(0, "abc"), chunkRecord(2, "ij"), chunkRecord(3, "x"), chunkRecord(1, "efghi")}, want: []upload.Range{{First: 0, Last: 2}}, wantSize: 9},
		{name: "hashed", size: 9, records: []record{hashed(chunkRecord(0, "abcd"), prefixOf("abcd")), chunkRecord(1, "efgh"), hashed(kind(recordHash, 0), prefixOf("abcd", "efgh"))}, want: []upload.Range{{First: 2, Last: 2}}, wantSize: 9, hashed: 8},
		{name: "dropped", size: 9, records: []record{chunkRecord(0, "abcd"), kind(recordDrop, 0)}, want: []upload.Range{{First: 0, Last: 2}}, wantSize: 9},
		{name: "dropped from the prefix", size: 9, records: []record{hashed(chunkRecord(0, "abcd"), prefixOf("abcd")), kind(recordDrop, 0), chunkRecord(0, "ABCD")}, want: []upload.Range{{First: 1, Last: 2}}, wantSize: 9},
		{name: "dropped, the same bytes again", size: 9, records: []record{hashed(chunkRecord(0, "abcd"), prefixOf("abcd")), hashed(chunkRecord(1, "efgh"), prefixOf("abcd", "efgh")), kind(recordDrop, 1), chunkRecord(1, "efgh")}, want: []upload.Range{{First: 2, Last: 2}}, wantSize: 9},
		{name: "a snapshot whose chunk is lost", size: 9, records: []record{lost, hashed(kind(recordHash, 0), prefixOf("abcd"))}, want: []upload.Range{{First: 0, Last: 2}}, wantSize: 9, suspect: true},
		{name: "a snapshot of other bytes", size: 9, records: []record{chunkRecord(0, "ABCD"), hashed(kind(recordHash, 0), prefixOf("abcd"))}, want: []upload.Range{{First: 1, Last: 2}}, wantSize: 9},
		{name: "a snapshot that ends inside a chunk", size: 9, records: []record{chunkRecord(0, "abcd"), hashed(kind(recordHash, 0), prefixOf("ab"))}, want: []upload.Range{{First: 1, Last: 2}}, wantSize: 9},
		{name: "a lost record", size: 9, records: []record{lost, chunkRecord(1, "efgh")}, want: []upload.Range{{First: 0, Last: 0}, {First: 2, Last: 2}}, wantSize: 9, suspect: true},
		{name: "a lost record is not verified away", size: 9, records: []record{chunkRecord(0, "abcd"), lost, kind(recordVerified, 0)}, want: []upload.Range{{First: 1, Last: 2}}, wantSize: 9, suspect: true},
		{name: "a torn tail", size: 9, records: []record{chunkRecord(1, "efgh"), lost, lost}, want: []upload.Range{{First: 0, Last: 0}, {First: 2, Last: 2}}, wantSize: 9},
		{name: "a lost drop, then other bytes", size: 9, records: []record{hashed(chunkRecord(0, "abcd"), prefixOf("abcd")), lost, chunkRecord(0, "ABCD")}, want: []upload.Range{{First: 1, Last: 2}}, wantSize: 9, suspect: true},
		{name: "another generation", size: 9, records: []record{generation(chunkRecord(0, "abcd"), 2)}, want: []upload.Range{{First: 1, Last: 2}}, wantSize: 9, suspect: true},
		{name: "another generation, durable", size: 9, records: []record{durable(generation(chunkRecord(0, "abcd"), 2))}, want: []upload.Range{{First: 1, Last: 2}}, wantSize: 9},
		{name: "verified", size: 9, records: []record{generation(chunkRecord(0, "abcd"), 2), kind(recordVerified, 0)}, want: []upload.Range{{First: 1, Last: 2}}, wantSize: 9},
		{name: "verified in another generation", size: 9, records: []record{generation(chunkRecord(0, "abcd"), 2), generation(kind(recordVerified, 0), 3)}, want: []upload.Range{{First: 1, Last: 2}}, wantSize: 9, suspect: true},
		{name: "sealed", size: 5, records: []record{generation(chunkRecord(1, "e"), 2), chunkRecord(0, "abcd"), hashed(kind(recordSealed, 0), prefixOf("abcd", "e"))}, wantSize: 5, hashed: 5, sealed: true},
		{name: "sealed without its chunks", size: 5, records: []record{lost, chunkRecord(0, "abcd"), hashed(kind(recordSealed, 0), prefixOf("abcd", "e"))}, want: []upload.Range{{First: 1, Last: 1}}, wantSize: 5, suspect: true},
		{name: "unsealed", size: 5, records: []record{chunkRecord(1, "e"), chunkRecord(0, "abcd"), hashed(kind(recordSealed, 0), prefixOf("abcd", "e")), kind(recordUnsealed, 0)}, wantSize: 5, hashed: 5},
		{name: "unknown size", size: -1, records: []record{chunkRecord(2, "ijkl"), chunkRecord(0, "abcd")}, want: []upload.Range{{First: 1, Last: 1}}, wantSize: -1},
		{name: "unknown size, short chunk", size: -1, records: []record{chunkRecord(2, "i"), chunkRecord(3, "mnop")}, want: []upload.Range{{First: 0, Last: 1}}, wantSize: 9},
		{name: "unknown size, short chunk dropped", size: -1, records: []record{chunkRecord(2, "i"), kind(recordDrop, 2)}, want: []upload.Range{{First: 0, Last: 2}}, wantSize: 9},
		{name: "unknown size, short chunk too early", size: -1, records: []record{chunkRecord(2, "ijkl"), chunkRecord(1, "e")}, want: []upload.Range{{First: 0, Last: 1}}, wantSize: -1},
		{name: "unknown size, sealed with too much", size: -1, records: []record{chunkRecord(0, "abcd"), hashed(kind(recordSealed, 0), prefixOf("abcd", "e"))}, wantSize: -1},
		{name: "unknown size, sealed", size: -1, records: []record{chunkRecord(0, "abcd"), hashed(kind(recordSealed, 0), prefixOf("abcd"))}, wantSize: 4, hashed: 4, sealed: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := replayJournal(journalOf(c.records...), testSpec(c.size), 1)
			u := upload.Upload{Spec: *testSpec(c.size), Size: r.size, Received: r.received}
			if missing := u.Missing(); !slices.Equal(missing, c.want) {
				t.Errorf("missing %v, want %v", missing, c.want)
			}
			if r.size != c.wantSize || r.prefix.n != c.hashed || r.sealed != c.sealed || r.suspect() != c.suspect {
				t.Errorf("size %d, hashed %d, sealed %v, suspect %v", r.size, r.prefix.n, r.sealed, r.suspect())
			}
			if r.received.Len() > 0 && !r.updated.Equal(time.Unix(5, 7)) {
				t.Errorf("updated %v", r.updated)
			}
		})
	}
}

// Any bytes are a journal.
func FuzzReplayJournal(f *testing.F) {
	f.Add([]byte{}, int64(9))
	p := prefixOf("abcd", "efgh", "i")
	f.Add(journalOf(chunkRecord(0, "abcd"), chunkRecord(2, "i"), record{kind: recordDrop, index: 2}, record{kind: recordVerified}, record{kind: recordSealed, prefix: p}), int64(9))
	f.Add(journalOf(chunkRecord(2, "i"), chunkRecord(3, "mnop"), record{kind: recordHash, prefix: p}, record{kind: recordUnsealed}), int64(-1))
	f.Fuzz(func(t *testing.T, data []byte, size int64) {
		spec := testSpec(max(size, -1))
		if checkSpec(spec) != nil {
			return
		}
		// A fuzzer does not guess CRCs, so each record gets the right one.
		signed := slices.Clone(data)
		for number := 0; (number+1)*recordSize <= len(signed); number++ {
			b := signed[number*recordSize : (number+1)*recordSize]
			crc := recordCRC(testID, int64(number), b[:recordSize-4])
			copy(b[recordSize-4:], []byte{byte(crc >> 24), byte(crc >> 16), byte(crc >> 8), byte(crc)})
		}
		for _, journal := range [][]byte{data, signed} {
			r := replayJournal(journal, spec, 1)
			layout := upload.Layout{Size: r.size, ChunkSize: spec.ChunkSize}
			if r.received.Last() >= layout.Count() || r.received.Len() > 0 && len(r.crcs) <= r.received.Last() {
				t.Fatalf("chunk %d of %d, %d CRCs", r.received.Last(), layout.Count(), len(r.crcs))
			}
			if spec.Size >= 0 && r.size != spec.Size {
				t.Fatalf("size %d became %d", spec.Size, r.size)
			}
			if r.records*recordSize > int64(len(journal)) {
				t.Fatalf("%d records in %d bytes", r.records, len(journal))
			}
			if r.prefix.n > 0 && !r.prefixHolds(layout) {
				t.Fatal("a prefix of chunks that are not there")
			}
			if r.sealed && (r.size < 0 || len(r.received.Missing(layout.Count())) > 0 || r.prefix.n != r.size) {
				t.Fatal("sealed with chunks missing")
			}
			if r.sealed {
				if _, err := r.prefix.sum(); err != nil {
					t.Fatal(err)
				}
			}
			newSession(*spec).restore(&r, false)
		}
	})
}

func TestManifest(t *testing.T) {
	t.Parallel()
	spec := testSpec(9)
	spec.Metadata, spec.SHA1, spec.Key = map[string]string{"a\n": "\x00é"}, upload.SHA1{1}, "k"
	text, err := encodeManifest(spec)
	if err != nil {
		t.Fatal(err)
	}
	got, err := parseManifest(text, testID)
	if err != nil {
		t.Fatal(err)
	}
	again, err := encodeManifest(&got)
	if err != nil || !bytes.Equal(again, text) {
		t.Errorf("got %s, want %s", again, text)
	}
	for n := range text {
		if _, err := parseManifest(text[:n], testID); err == nil {
			t.Errorf("cut at %d it is read", n)
		}
		flipped := slices.Clone(text)
		flipped[n] ^= 4
		if _, err := parseManifest(flipped, testID); err == nil {
			t.Errorf("flipped at %d it is read", n)
		}
	}
	if _, err := parseManifest(text, "n0de-00000000000000000000000001"); err == nil {
		t.Error("the manifest of another upload is read")
	}
	signed := func(line string) []byte {
		b := []byte(line + "\n")
		crc := crc32.Checksum(b, upload.Castagnoli)
		return append(b, "crc32c "+hex8(crc)+"\n"...)
	}
	for _, line := range []string{
		`{}`, `null`, `[]`, `{"version":2,"upload":{"id":"` + testID + `","size":1,"chunk_size":1}}`,
		`{"version":1,"upload":{"id":"` + testID + `","size":-5,"chunk_size":1}}`, `{"version":1,"upload":{"id":"` + testID + `","size":1}}`,
	} {
		if spec, err := parseManifest(signed(line), testID); err == nil {
			t.Errorf("%s is read as %+v", line, spec)
		}
	}
}

func hex8(n uint32) string {
	const digits = "0123456789abcdef"
	b := make([]byte, 8)
	for i := range b {
		b[i] = digits[n>>(28-4*i)&15]
	}
	return string(b)
}

func FuzzManifest(f *testing.F) {
	text, err := encodeManifest(testSpec(9))
	if err != nil {
		f.Fatal(err)
	}
	line, _, _ := bytes.Cut(text, []byte("\n"))
	f.Add(line)
	f.Add([]byte(`{"version":1}`))
	f.Add([]byte(`{"version":1,"upload":{"metadata":{"a":null}}}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		if _, err := parseManifest(line, testID); err == nil {
			t.Fatal("read without a checksum")
		}
		signed := append(slices.Clone(line), '\n')
		crc := crc32.Checksum(signed, upload.Castagnoli)
		spec, err := parseManifest(append(signed, "crc32c "+hex8(crc)+"\n"...), testID)
		if err != nil {
			return
		}
		if spec.ID != testID || checkSpec(&spec) != nil {
			t.Fatalf("read as %+v", spec)
		}
	})
}

func TestBootFile(t *testing.T) {
	t.Parallel()
	for _, state := range []bootState{bootOpen, bootClean, bootFailed} {
		for _, id := range []string{"", "3f1c-…", "a \"b\"\n"} {
			text := encodeBoot(0xfedcba98, state, id)
			generation, gotState, gotID, ok := parseBoot(text)
			if !ok || generation != 0xfedcba98 || gotState != state || gotID != id {
				t.Errorf("%s: %x %v %q %v", text, generation, gotState, gotID, ok)
			}
			for n := range text {
				flipped := slices.Clone(text)
				flipped[n] ^= 1
				if _, _, _, ok := parseBoot(flipped); ok {
					t.Errorf("%q flipped at %d is believed", text, n)
				}
				if _, _, _, ok := parseBoot(text[:n]); ok {
					t.Errorf("%q cut at %d is believed", text, n)
				}
			}
		}
	}
}
