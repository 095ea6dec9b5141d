// Package chunkstoretest is the contract of the chunkstore port as tests: every driver passes them.
package chunkstoretest

import (
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"gantry/chunkstore"
	"gantry/upload"
)

// chunkSize is that of most uploads here, bytes.
const chunkSize = 64 << 10

// Opener opens the same storage again and again; the one before is closed by then.
type Opener func(t *testing.T) chunkstore.Staging

// RunStaging tests a Staging driver. fresh returns an Opener of empty storage.
func RunStaging(t *testing.T, fresh func(t *testing.T) Opener) {
	t.Helper()
	run := func(name string, test func(t *testing.T, s chunkstore.Staging)) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := fresh(t)(t)
			test(t, s)
			if err := s.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
		})
	}
	run("create", testCreate)
	run("create refuses", testCreateRefuses)
	run("chunks in any order", testAnyOrder)
	run("chunks in order are hashed as they come", testHashedAsTheyCome)
	run("long chunks", testLongChunks)
	run("a chunk twice", testRepeat)
	run("bad chunks", testBadChunks)
	run("a failed chunk leaves nothing", testFailedChunk)
	run("unknown size", testUnknownSize)
	run("unknown size, full last chunk", testUnknownSizeFull)
	run("seal refuses", testSealRefuses)
	run("seal", testSeal)
	run("empty file", testEmpty)
	run("whole file", testWriteWhole)
	run("whole file refused", testWriteWholeRefused)
	run("the same chunk twice at once", testSameChunkAtOnce)
	run("a stalled chunk is taken over", testStalled)
	run("all at once", testAllAtOnce)
	run("recheck", testRecheck)
	run("commit and discard", testCommitDiscard)
	run("discard while receiving", testDiscardWhileReceiving)
	run("prefix of an open upload", testPrefix)
	run("health", testHealth)
	t.Run("restart", func(t *testing.T) { t.Parallel(); testRestart(t, fresh(t)) })
	t.Run("after close", func(t *testing.T) { t.Parallel(); testAfterClose(t, fresh(t)(t)) })
}

// NewSpec describes an upload of size bytes in chunks of chunk bytes.
func NewSpec(size, chunk int64) upload.Spec {
	return upload.Spec{
		ID: upload.NewUploadID("n0de"), Owner: "local", Name: "é.bin", Path: "a/b", ContentType: "x/y",
		Metadata: map[string]string{"k": "v"}, Size: size, ChunkSize: chunk, Key: "key", Fingerprint: "f",
		CreatedAt: time.Now().UTC().Truncate(time.Microsecond),
	}
}

// Bytes returns n bytes that look random and are always the same for a seed.
func Bytes(n int64, seed byte) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

// BodyOf is a body of p.
func BodyOf(p []byte) chunkstore.Body {
	return chunkstore.Body{Reader: bytes.NewReader(p), Length: int64(len(p))}
}

// Chunk cuts chunk index out of content.
func Chunk(content []byte, chunk int64, index int) []byte {
	from := min(int64(index)*chunk, int64(len(content)))
	return content[from:min(from+chunk, int64(len(content)))]
}

// SealedOf is what Seal returns for content.
func SealedOf(content []byte) upload.Sealed {
	return upload.Sealed{
		Size: int64(len(content)), SHA1: sha1.Sum(content), CRC32C: crc32.Checksum(content, upload.Castagnoli),
		Hint: sha1.Sum(content[:min(len(content), upload.HintLength)]),
	}
}

// ReadAll reads content to its end.
func ReadAll(t *testing.T, s chunkstore.Staging, id string) []byte {
	t.Helper()
	c, err := s.Open(t.Context(), id)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	defer func() { _ = c.Close() }()
	got, err := io.ReadAll(io.NewSectionReader(c, 0, c.Size()+1)) // +1: nothing may come after the end
	if err != nil {
		t.Fatalf("read: %v", err)
	}
	if int64(len(got)) != c.Size() {
		t.Fatalf("Size is %d, but %d bytes can be read", c.Size(), len(got))
	}
	return got
}

func want(t *testing.T, err error, kind upload.Kind) {
	t.Helper()
	if !errors.Is(err, kind) || upload.KindOf(err) != kind {
		t.Helper()
		t.Fatalf("got error %v, want kind %q", err, kind.Code())
	}
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func create(t *testing.T, s chunkstore.Staging, size int64) upload.Spec {
	t.Helper()
	spec := NewSpec(size, chunkSize)
	ok(t, s.Create(t.Context(), spec))
	return spec
}

func send(t *testing.T, s chunkstore.Staging, id string, content []byte, indexes ...int) {
	t.Helper()
	for _, i := range indexes {
		if err := s.WriteChunk(t.Context(), id, i, BodyOf(Chunk(content, chunkSize, i))); err != nil {
			t.Fatalf("chunk %d: %v", i, err)
		}
	}
}

func get(t *testing.T, s chunkstore.Staging, id string) upload.Upload {
	t.Helper()
	u, err := s.Get(id)
	ok(t, err)
	return u
}

func testCreate(t *testing.T, s chunkstore.Staging) {
	spec := create(t, s, 3*chunkSize+1)
	u := get(t, s, spec.ID)
	if fmt.Sprint(u.Spec) != fmt.Sprint(spec) || u.Size != spec.Size || u.Sealed || u.ReceivedBytes != 0 || u.HashedBytes != 0 {
		t.Errorf("got %+v, want %+v", u, spec)
	}
	if missing := u.Missing(); !slices.Equal(missing, []upload.Range{{First: 0, Last: 3}}) {
		t.Errorf("missing %v", missing)
	}
	if !u.UpdatedAt.Equal(spec.CreatedAt) {
		t.Errorf("updated %v, created %v", u.UpdatedAt, spec.CreatedAt)
	}
	other := create(t, s, 0)
	ids := map[string]bool{}
	for u := range s.All() {
		ids[u.ID] = true
	}
	if len(ids) != 2 || !ids[spec.ID] || !ids[other.ID] {
		t.Errorf("All: %v", ids)
	}
	for range s.All() {
		break // must be allowed
	}
	data, err := s.Data()
	ok(t, err)
	if len(data) != 0 {
		t.Errorf("Data lists open uploads: %v", data)
	}
}

func testCreateRefuses(t *testing.T, s chunkstore.Staging) {
	spec := create(t, s, 10)
	want(t, s.Create(t.Context(), spec), upload.Conflict)
	if u := get(t, s, spec.ID); u.Size != 10 {
		t.Errorf("a refused Create changed the upload: %+v", u)
	}
	for _, bad := range []upload.Spec{
		NewSpec(-2, chunkSize), NewSpec(10, 0), NewSpec(10, -1),
		NewSpec(chunkSize*upload.MaxChunks+1, chunkSize), NewSpec(10, upload.MaxChunkSize+1),
	} {
		want(t, s.Create(t.Context(), bad), upload.InvalidSize)
		_, err := s.Get(bad.ID)
		want(t, err, upload.NotFound)
	}
	for _, id := range []string{"", "x", "../etc", "n0de-../../../../../../../../etc", "n0de/" + upload.NewID(time.Now())} {
		bad := NewSpec(10, chunkSize)
		bad.ID = id
		want(t, s.Create(t.Context(), bad), upload.Invalid)
	}
}

func testAnyOrder(t *testing.T, s chunkstore.Staging) {
	content := Bytes(5*chunkSize+7, 1)
	spec := create(t, s, int64(len(content)))
	received := int64(0)
	for _, i := range []int{3, 0, 5, 4, 1} {
		send(t, s, spec.ID, content, i)
		received += int64(len(Chunk(content, chunkSize, i)))
		u := get(t, s, spec.ID)
		if !u.Received.Has(i) || u.ReceivedBytes != received {
			t.Fatalf("after chunk %d: %d bytes of %d, received %v", i, u.ReceivedBytes, received, u.Received.Has(i))
		}
		if u.UpdatedAt.Before(spec.CreatedAt) {
			t.Errorf("updated %v before it was created %v", u.UpdatedAt, spec.CreatedAt)
		}
	}
	u := get(t, s, spec.ID)
	if missing := u.Missing(); !slices.Equal(missing, []upload.Range{{First: 2, Last: 2}}) {
		t.Errorf("missing %v", missing)
	}
	send(t, s, spec.ID, content, 2)
	sealed, err := s.Seal(t.Context(), spec.ID, upload.UnknownSize)
	ok(t, err)
	if sealed != SealedOf(content) {
		t.Errorf("sealed %+v, want %+v", sealed, SealedOf(content))
	}
	if !bytes.Equal(ReadAll(t, s, spec.ID), content) {
		t.Error("other bytes come back")
	}
}

func testHashedAsTheyCome(t *testing.T, s chunkstore.Staging) {
	content := Bytes(4*chunkSize, 2)
	spec := create(t, s, int64(len(content)))
	for i := range 4 {
		send(t, s, spec.ID, content, i)
		if u := get(t, s, spec.ID); u.HashedBytes != int64(i+1)*chunkSize {
			t.Fatalf("%d bytes hashed after chunk %d", u.HashedBytes, i)
		}
	}
}

func testLongChunks(t *testing.T, s chunkstore.Staging) {
	const long = 1 << 20
	content := Bytes(4*long-12345, 3)
	for _, order := range [][]int{{0, 1, 2, 3}, {3, 2, 1, 0}, {1, 0, 3, 2}} {
		spec := NewSpec(int64(len(content)), long)
		ok(t, s.Create(t.Context(), spec))
		for _, i := range order {
			p := Chunk(content, long, i)
			sum, crc := sha256.Sum256(p), crc32.Checksum(p, upload.Castagnoli)
			body := BodyOf(p)
			body.CRC32C, body.Checks = &crc, []chunkstore.Check{{Hash: sha256.New(), Want: sum[:]}}
			ok(t, s.WriteChunk(t.Context(), spec.ID, i, body))
		}
		sealed, err := s.Seal(t.Context(), spec.ID, int64(len(content)))
		ok(t, err)
		if sealed != SealedOf(content) {
			t.Errorf("order %v: sealed %+v, want %+v", order, sealed, SealedOf(content))
		}
		if !bytes.Equal(ReadAll(t, s, spec.ID), content) {
			t.Errorf("order %v: other bytes come back", order)
		}
	}
}

func testRepeat(t *testing.T, s chunkstore.Staging) {
	content := Bytes(2*chunkSize+100, 4)
	spec := create(t, s, int64(len(content)))
	send(t, s, spec.ID, content, 1, 1, 2, 1)
	other := slices.Clone(Chunk(content, chunkSize, 1))
	other[len(other)-1] ^= 1
	want(t, s.WriteChunk(t.Context(), spec.ID, 1, BodyOf(other)), upload.ChunkConflict)

	// A body that was damaged on its way is no other content.
	crc := crc32.Checksum(Chunk(content, chunkSize, 1), upload.Castagnoli)
	body := BodyOf(other)
	body.CRC32C = &crc
	want(t, s.WriteChunk(t.Context(), spec.ID, 1, body), upload.DigestMismatch)
	body = chunkstore.Body{Reader: bytes.NewReader(other[:10]), Length: chunkSize}
	want(t, s.WriteChunk(t.Context(), spec.ID, 1, body), upload.ShortBody)

	send(t, s, spec.ID, content, 0)
	sealed, err := s.Seal(t.Context(), spec.ID, upload.UnknownSize)
	ok(t, err)
	if sealed != SealedOf(content) {
		t.Errorf("sealed %+v, want %+v", sealed, SealedOf(content))
	}
}

type failingReader struct{ err error }

func (f failingReader) Read([]byte) (int, error) { return 0, f.err }

func testBadChunks(t *testing.T, s chunkstore.Staging) {
	content := Bytes(2*chunkSize+100, 5)
	spec := create(t, s, int64(len(content)))
	chunk := Chunk(content, chunkSize, 0)
	sum, wrong := sha256.Sum256(chunk[1:]), uint32(1)
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	late, stop := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer stop()
	for _, c := range []struct {
		name  string
		ctx   context.Context //nolint:containedctx // a row of the table
		index int
		body  chunkstore.Body
		kind  upload.Kind
	}{
		{"index too high", nil, 3, BodyOf(chunk), upload.InvalidIndex},
		{"negative index", nil, -1, BodyOf(chunk), upload.InvalidIndex},
		{"announced too short", nil, 0, BodyOf(chunk[1:]), upload.ShortBody},
		{"announced too long", nil, 0, BodyOf(content[:chunkSize+1]), upload.LongBody},
		{"last chunk announced too long", nil, 2, BodyOf(chunk), upload.LongBody},
		{"not announced", nil, 0, chunkstore.Body{Reader: bytes.NewReader(chunk), Length: -1}, upload.LengthRequired},
		{"ends early", nil, 0, chunkstore.Body{Reader: bytes.NewReader(chunk[1:]), Length: chunkSize}, upload.ShortBody},
		{"goes on", nil, 0, chunkstore.Body{Reader: bytes.NewReader(content), Length: chunkSize}, upload.LongBody},
		{"wrong CRC", nil, 0, chunkstore.Body{Reader: bytes.NewReader(chunk), Length: chunkSize, CRC32C: &wrong}, upload.DigestMismatch},
		{"wrong digest", nil, 0, chunkstore.Body{
			Reader: bytes.NewReader(chunk), Length: chunkSize,
			Checks: []chunkstore.Check{{Hash: sha256.New(), Want: sum[:]}},
		}, upload.DigestMismatch},
		{"the connection breaks", nil, 0, chunkstore.Body{
			Reader: io.MultiReader(bytes.NewReader(chunk[:1000]), failingReader{errors.New("connection reset by peer")}), Length: chunkSize,
		}, upload.Canceled},
		{"the reader classifies its error", nil, 0, chunkstore.Body{
			Reader: failingReader{upload.Errorf(upload.Timeout, "", "", "Too slow.")}, Length: chunkSize,
		}, upload.Timeout},
		{"the caller went away", canceled, 0, BodyOf(chunk), upload.Canceled},
		{"too late", late, 0, BodyOf(chunk), upload.Timeout},
	} {
		ctx := c.ctx
		if ctx == nil {
			ctx = t.Context()
		}
		err := s.WriteChunk(ctx, spec.ID, c.index, c.body)
		if upload.KindOf(err) != c.kind || err == nil {
			t.Errorf("%s: %v, want kind %q", c.name, err, c.kind.Code())
		}
		if u := get(t, s, spec.ID); u.Received.Len() != 0 || u.ReceivedBytes != 0 || u.HashedBytes != 0 {
			t.Fatalf("%s: the chunk counts as received", c.name)
		}
	}
	want(t, s.WriteChunk(t.Context(), upload.NewUploadID("n0de"), 0, BodyOf(chunk)), upload.NotFound)
	want(t, s.WriteChunk(t.Context(), "../x", 0, BodyOf(chunk)), upload.NotFound)
}

func testFailedChunk(t *testing.T, s chunkstore.Staging) {
	content := Bytes(2*chunkSize, 6)
	spec := create(t, s, int64(len(content)))
	garbage := Bytes(chunkSize, 7)
	crc := uint32(0)
	for i := range 2 {
		body := BodyOf(garbage)
		body.CRC32C = &crc
		want(t, s.WriteChunk(t.Context(), spec.ID, i, body), upload.DigestMismatch)
	}
	send(t, s, spec.ID, content, 0, 1)
	sealed, err := s.Seal(t.Context(), spec.ID, upload.UnknownSize)
	ok(t, err)
	if sealed != SealedOf(content) {
		t.Errorf("sealed %+v, want %+v", sealed, SealedOf(content))
	}
}

func testUnknownSize(t *testing.T, s chunkstore.Staging) {
	content := Bytes(3*chunkSize+5, 8)
	spec := create(t, s, upload.UnknownSize)
	send(t, s, spec.ID, content, 0, 2)
	u := get(t, s, spec.ID)
	if u.Size != upload.UnknownSize || !slices.Equal(u.Missing(), []upload.Range{{First: 1, Last: 1}}) {
		t.Fatalf("size %d, missing %v", u.Size, u.Missing())
	}
	want(t, s.WriteChunk(t.Context(), spec.ID, 1, BodyOf(content[:5])), upload.ShortBody)
	want(t, s.WriteChunk(t.Context(), spec.ID, 3, BodyOf(nil)), upload.ShortBody)
	want(t, s.WriteChunk(t.Context(), spec.ID, 3, BodyOf(content[:chunkSize+1])), upload.LongBody)
	want(t, s.WriteChunk(t.Context(), spec.ID, upload.MaxChunks, BodyOf(content[:chunkSize])), upload.InvalidIndex)
	want(t, s.WriteChunk(t.Context(), spec.ID, 2, BodyOf(content[:5])), upload.ChunkConflict)
	if u := get(t, s, spec.ID); u.Size != upload.UnknownSize {
		t.Fatalf("a refused chunk made the size %d", u.Size)
	}
	send(t, s, spec.ID, content, 3)
	if u := get(t, s, spec.ID); u.Size != int64(len(content)) {
		t.Fatalf("size %d after the short chunk", u.Size)
	}
	want(t, s.WriteChunk(t.Context(), spec.ID, 4, BodyOf(content[:chunkSize])), upload.InvalidIndex)
	_, err := s.Seal(t.Context(), spec.ID, int64(len(content))+1)
	want(t, err, upload.InvalidSize)
	_, err = s.Seal(t.Context(), spec.ID, upload.UnknownSize)
	want(t, err, upload.Incomplete)
	send(t, s, spec.ID, content, 1)
	sealed, err := s.Seal(t.Context(), spec.ID, upload.UnknownSize)
	ok(t, err)
	if sealed != SealedOf(content) || !bytes.Equal(ReadAll(t, s, spec.ID), content) {
		t.Errorf("sealed %+v, want %+v", sealed, SealedOf(content))
	}
}

func testUnknownSizeFull(t *testing.T, s chunkstore.Staging) {
	content := Bytes(2*chunkSize, 9)
	spec := create(t, s, upload.UnknownSize)
	send(t, s, spec.ID, content, 0, 1)
	// Without a size a lost last chunk would go unnoticed.
	for _, size := range []int64{upload.UnknownSize, 2*chunkSize - 1, chunkSize, 0, chunkSize*upload.MaxChunks + 1} {
		_, err := s.Seal(t.Context(), spec.ID, size)
		want(t, err, upload.InvalidSize)
	}
	_, err := s.Seal(t.Context(), spec.ID, 4*chunkSize)
	want(t, err, upload.Incomplete)
	if e, _ := errors.AsType[*upload.Error](err); !slices.Equal(e.Ranges, []upload.Range{{First: 2, Last: 3}}) {
		t.Errorf("ranges %v", e.Ranges)
	}
	sealed, err := s.Seal(t.Context(), spec.ID, 2*chunkSize)
	ok(t, err)
	if sealed != SealedOf(content) {
		t.Errorf("sealed %+v, want %+v", sealed, SealedOf(content))
	}
}

func testSealRefuses(t *testing.T, s chunkstore.Staging) {
	content := Bytes(3*chunkSize, 10)
	spec := create(t, s, int64(len(content)))
	send(t, s, spec.ID, content, 1)
	_, err := s.Seal(t.Context(), spec.ID, upload.UnknownSize)
	want(t, err, upload.Incomplete)
	if e, _ := errors.AsType[*upload.Error](err); !slices.Equal(e.Ranges, []upload.Range{{First: 0, Last: 0}, {First: 2, Last: 2}}) {
		t.Errorf("ranges %v", e.Ranges)
	}
	_, err = s.Seal(t.Context(), spec.ID, 3*chunkSize-1)
	want(t, err, upload.InvalidSize)
	_, err = s.Seal(t.Context(), upload.NewUploadID("n0de"), upload.UnknownSize)
	want(t, err, upload.NotFound)
	send(t, s, spec.ID, content, 0, 2) // still open
}

func testSeal(t *testing.T, s chunkstore.Staging) {
	content := Bytes(2*chunkSize+9, 11)
	spec := create(t, s, int64(len(content)))
	send(t, s, spec.ID, content, 2, 1, 0)
	for _, size := range []int64{upload.UnknownSize, int64(len(content)), upload.UnknownSize} {
		sealed, err := s.Seal(t.Context(), spec.ID, size)
		ok(t, err)
		if sealed != SealedOf(content) {
			t.Errorf("sealed %+v, want %+v", sealed, SealedOf(content))
		}
	}
	_, err := s.Seal(t.Context(), spec.ID, 1)
	want(t, err, upload.InvalidSize)
	u := get(t, s, spec.ID)
	if !u.Sealed || u.HashedBytes != u.Size || u.ReceivedBytes != u.Size {
		t.Errorf("%+v", u)
	}
	want(t, s.WriteChunk(t.Context(), spec.ID, 0, BodyOf(Chunk(content, chunkSize, 0))), upload.NotOpen)
}

func testEmpty(t *testing.T, s chunkstore.Staging) {
	for _, spec := range []upload.Spec{create(t, s, 0), create(t, s, upload.UnknownSize)} {
		if spec.Size == 0 {
			want(t, s.WriteChunk(t.Context(), spec.ID, 0, BodyOf(nil)), upload.InvalidIndex)
		}
		sealed, err := s.Seal(t.Context(), spec.ID, 0)
		ok(t, err)
		if sealed != SealedOf(nil) {
			t.Errorf("sealed %+v, want %+v", sealed, SealedOf(nil))
		}
		if got := ReadAll(t, s, spec.ID); len(got) != 0 {
			t.Errorf("%d bytes come back", len(got))
		}
		ok(t, s.Commit(t.Context(), spec.ID))
		if got := ReadAll(t, s, spec.ID); len(got) != 0 {
			t.Errorf("%d bytes come back after commit", len(got))
		}
	}
}

func testWriteWhole(t *testing.T, s chunkstore.Staging) {
	for _, size := range []int64{0, 1, 100, upload.HintLength, upload.HintLength + 1, 256 << 10, 256<<10 + 1, 3 << 20} {
		for _, announced := range []bool{true, false} {
			content := Bytes(size, 12)
			crc, sum := crc32.Checksum(content, upload.Castagnoli), sha256.Sum256(content)
			body := BodyOf(content)
			body.CRC32C, body.Checks = &crc, []chunkstore.Check{{Hash: sha256.New(), Want: sum[:]}}
			if !announced {
				body.Length = -1
			}
			id := upload.NewUploadID("n0de")
			sealed, err := s.WriteWhole(t.Context(), id, body, size)
			if err != nil {
				t.Fatalf("%d bytes, announced %v: %v", size, announced, err)
			}
			if sealed != SealedOf(content) {
				t.Errorf("%d bytes, announced %v: sealed %+v, want %+v", size, announced, sealed, SealedOf(content))
			}
			if !bytes.Equal(ReadAll(t, s, id), content) {
				t.Errorf("%d bytes: others come back", size)
			}
			data, err := s.Data()
			ok(t, err)
			if !slices.Contains(data, id) {
				t.Errorf("Data does not list %s", id)
			}
			_, err = s.WriteWhole(t.Context(), id, BodyOf(content), size)
			want(t, err, upload.Conflict)
			ok(t, s.Commit(t.Context(), id))
			if !bytes.Equal(ReadAll(t, s, id), content) {
				t.Errorf("%d bytes: others come back after commit", size)
			}
		}
	}
}

func testWriteWholeRefused(t *testing.T, s chunkstore.Staging) {
	content, wrong := Bytes(600<<10, 13), uint32(1)
	const size = 600 << 10
	for name, c := range map[string]struct {
		body  chunkstore.Body
		limit int64
		kind  upload.Kind
	}{
		"announced over the limit":   {BodyOf(content), size - 1, upload.TooLarge},
		"over the limit":             {chunkstore.Body{Reader: bytes.NewReader(content), Length: -1}, size - 1, upload.TooLarge},
		"ends early":                 {chunkstore.Body{Reader: bytes.NewReader(content), Length: size + 1}, 2 * size, upload.ShortBody},
		"goes on":                    {chunkstore.Body{Reader: bytes.NewReader(content), Length: size - 1}, 2 * size, upload.LongBody},
		"small, goes on":             {chunkstore.Body{Reader: bytes.NewReader(content), Length: 10}, 2 * size, upload.LongBody},
		"wrong CRC":                  {chunkstore.Body{Reader: bytes.NewReader(content), Length: size, CRC32C: &wrong}, size, upload.DigestMismatch},
		"empty, wrong CRC":           {chunkstore.Body{Reader: bytes.NewReader(nil), CRC32C: &wrong}, size, upload.DigestMismatch},
		"the connection breaks":      {chunkstore.Body{Reader: io.MultiReader(bytes.NewReader(content[:300<<10]), failingReader{io.ErrClosedPipe}), Length: size}, size, upload.Canceled},
		"unannounced, it breaks":     {chunkstore.Body{Reader: io.MultiReader(bytes.NewReader(content), failingReader{io.ErrUnexpectedEOF}), Length: -1}, 2 * size, upload.ShortBody},
		"unannounced, one too large": {chunkstore.Body{Reader: bytes.NewReader(content[:256<<10+1]), Length: -1}, 256 << 10, upload.TooLarge},
	} {
		id := upload.NewUploadID("n0de")
		_, err := s.WriteWhole(t.Context(), id, c.body, c.limit)
		if err == nil || upload.KindOf(err) != c.kind {
			t.Errorf("%s: %v, want kind %q", name, err, c.kind.Code())
		}
		if _, err := s.Open(t.Context(), id); !errors.Is(err, upload.NotFound) {
			t.Errorf("%s: something is left: %v", name, err)
		}
	}
	_, err := s.WriteWhole(t.Context(), "../x", BodyOf(content), size)
	want(t, err, upload.Invalid)
	open := create(t, s, 10)
	_, err = s.WriteWhole(t.Context(), open.ID, BodyOf(content), size)
	want(t, err, upload.Conflict)
	data, err := s.Data()
	ok(t, err)
	if len(data) != 0 {
		t.Errorf("data is left: %v", data)
	}
}
