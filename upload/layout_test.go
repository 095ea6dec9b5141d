package upload_test

import (
	"math"
	"math/bits"
	"testing"

	"gantry/upload"

	"pgregory.net/rapid"
)

func TestChooseChunkSize(t *testing.T) {
	t.Parallel()
	const mib, gib = int64(1) << 20, int64(1) << 30
	for _, c := range []struct {
		name             string
		size, hint, want int64
	}{
		{"empty", 0, 0, upload.DefaultChunkSize},
		{"unknown size", upload.UnknownSize, 0, upload.DefaultChunkSize},
		{"unknown size, hint", upload.UnknownSize, 64 * mib, 64 * mib},
		{"the last size for the default", upload.DefaultChunkSize * upload.MaxChunks, 0, upload.DefaultChunkSize},
		{"one byte more", upload.DefaultChunkSize*upload.MaxChunks + 1, 0, 2 * upload.DefaultChunkSize},
		{"hint below the least", 10 * mib, 1, upload.MinChunkSize},
		{"hint above the most", 10 * mib, math.MaxInt64, upload.MaxChunkSize},
		{"hint rounded down", 10 * mib, 5*mib + 3, 4 * mib},
		{"hint too small for the size", 10_001 * mib, mib, 2 * mib},
		{"negative hint", 10 * mib, -5, upload.DefaultChunkSize},
		{"the largest file", upload.MaxSize, 0, gib},
		{"the largest file, hint", upload.MaxSize, mib, gib},
	} {
		if got := upload.ChooseChunkSize(c.size, c.hint); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

func TestLayoutCoversTheFileExactly(t *testing.T) {
	t.Parallel()
	sizes := rapid.OneOf(
		rapid.Int64Range(0, 64<<20),
		rapid.Int64Range(0, upload.MaxSize),
		rapid.Custom(func(t *rapid.T) int64 { // around multiples of powers of two
			n := rapid.Int64Range(1, upload.MaxChunks).Draw(t, "n") << rapid.IntRange(20, 30).Draw(t, "shift")
			return min(max(n+rapid.Int64Range(-1, 1).Draw(t, "off"), 0), upload.MaxSize)
		}),
	)
	rapid.Check(t, func(t *rapid.T) {
		size := sizes.Draw(t, "size")
		chunk := upload.ChooseChunkSize(size, rapid.Int64().Draw(t, "hint"))
		if chunk < upload.MinChunkSize || chunk > upload.MaxChunkSize || bits.OnesCount64(uint64(chunk)) != 1 {
			t.Fatalf("chunk size %d", chunk)
		}
		l := upload.Layout{Size: size, ChunkSize: chunk}
		count := l.Count()
		if count > upload.MaxChunks {
			t.Fatalf("%d chunks of %d for %d bytes", count, chunk, size)
		}
		var end int64
		for i := range count {
			if l.Offset(i) != end {
				t.Fatalf("chunk %d starts at %d, the one before ended at %d", i, l.Offset(i), end)
			}
			n := l.Length(i)
			if n < 1 || n > chunk || (n < chunk && i != count-1) {
				t.Fatalf("chunk %d of %d has %d bytes of %d", i, count, n, chunk)
			}
			end += n
		}
		if end != size {
			t.Fatalf("the chunks end at %d, the file at %d", end, size)
		}
	})
}

func TestLayoutOfUnknownSize(t *testing.T) {
	t.Parallel()
	l := upload.Layout{Size: upload.UnknownSize, ChunkSize: upload.MinChunkSize}
	if l.Count() != upload.MaxChunks || l.Length(upload.MaxChunks-1) != upload.MinChunkSize {
		t.Errorf("count %d, length %d", l.Count(), l.Length(upload.MaxChunks-1))
	}
}

func TestUploadMissing(t *testing.T) {
	t.Parallel()
	u := upload.Upload{Spec: upload.Spec{ChunkSize: upload.MinChunkSize}, Size: upload.UnknownSize}
	if got := u.Missing(); len(got) != 0 {
		t.Errorf("nothing received, size unknown: %v", got)
	}
	u.Received.Add(3)
	if got := u.Missing(); len(got) != 1 || got[0] != (upload.Range{First: 0, Last: 2}) {
		t.Errorf("chunk 3 of unknown size: %v", got)
	}
	u.Size = 5*upload.MinChunkSize + 1
	if got := u.Missing(); len(got) != 2 || got[1] != (upload.Range{First: 4, Last: 5}) {
		t.Errorf("chunk 3 of 6: %v", got)
	}
}

func TestStates(t *testing.T) {
	t.Parallel()
	states := []upload.State{upload.Open, upload.Complete, upload.Cancelled, upload.Expired, upload.Rejected}
	for _, from := range states {
		for _, to := range states {
			if got, want := from.CanBecome(to), from == upload.Open && to != upload.Open; got != want {
				t.Errorf("%s to %s: %v", from, to, got)
			}
		}
	}
}
