package upload_test

import (
	"hash/crc32"
	"math/rand/v2"
	"testing"

	"gantry/upload"

	"pgregory.net/rapid"
)

func TestCombineCRC32C(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var whole []byte
		var combined uint32
		for _, part := range rapid.SliceOfN(rapid.SliceOfN(rapid.Byte(), 0, 300), 0, 8).Draw(t, "parts") {
			combined = upload.CombineCRC32C(combined, crc32.Checksum(part, upload.Castagnoli), int64(len(part)))
			whole = append(whole, part...)
		}
		if want := crc32.Checksum(whole, upload.Castagnoli); combined != want {
			t.Fatalf("combined %08x, direct %08x of %d bytes", combined, want, len(whole))
		}
	})
}

// Chunks as long as they really are.
func TestCombineCRC32COfLongChunks(t *testing.T) {
	t.Parallel()
	data := make([]byte, 5<<20+17)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(data)
	want := crc32.Checksum(data, upload.Castagnoli)
	for _, chunk := range []int{1 << 10, 1 << 20, 1<<20 + 1, len(data)} {
		var got uint32
		for off := 0; off < len(data); off += chunk {
			part := data[off:min(off+chunk, len(data))]
			got = upload.CombineCRC32C(got, crc32.Checksum(part, upload.Castagnoli), int64(len(part)))
		}
		if got != want {
			t.Errorf("chunks of %d: %08x, want %08x", chunk, got, want)
		}
	}
}

// A length beyond 32 bits, without its bytes: zeros can be appended in doubling steps.
func TestCombineCRC32COfALongRunOfZeros(t *testing.T) {
	t.Parallel()
	zeros := make([]byte, 1<<16)
	doubled, length := crc32.Checksum(zeros, upload.Castagnoli), int64(1<<16)
	for length < 1<<40 {
		doubled, length = upload.CombineCRC32C(doubled, doubled, length), 2*length
	}
	var stepped uint32
	gib := crc32.Checksum(nil, upload.Castagnoli)
	for n := int64(0); n < 1<<30; n += 1 << 16 {
		gib = upload.CombineCRC32C(gib, crc32.Checksum(zeros, upload.Castagnoli), 1<<16)
	}
	for n := int64(0); n < 1<<40; n += 1 << 30 {
		stepped = upload.CombineCRC32C(stepped, gib, 1<<30)
	}
	if doubled != stepped {
		t.Errorf("1 TiB of zeros: %08x by doubling, %08x by chunks", doubled, stepped)
	}
}
