package upload

import "math/bits"

// Limits on how a file is cut into chunks.
const (
	MinChunkSize     int64 = 1 << 20                  // 1 MiB
	MaxChunkSize     int64 = 1 << 30                  // 1 GiB
	DefaultChunkSize int64 = 8 << 20                  // 8 MiB
	MaxChunks              = 10_000                   // per upload
	MaxSize          int64 = MaxChunks * MaxChunkSize // what the limits above allow one file to be
	UnknownSize      int64 = -1                       // the size is given at complete
)

// ChooseChunkSize decides how long the chunks of a file of size bytes are: a power of two between
// MinChunkSize and MaxChunkSize, large enough for at most MaxChunks chunks. A hint (0 for none) is
// honoured inside these limits, rounded down to a power of two. For UnknownSize only the hint and
// the default count.
func ChooseChunkSize(size, hint int64) int64 {
	chunk := DefaultChunkSize
	if hint > 0 {
		chunk = min(max(floorPow2(hint), MinChunkSize), MaxChunkSize)
	}
	for chunk < MaxChunkSize && size > chunk*MaxChunks {
		chunk *= 2
	}
	return chunk
}

func floorPow2(n int64) int64 { return 1 << (bits.Len64(uint64(n)) - 1) }

// Layout is how a file is cut: every chunk is ChunkSize long but the last, which has the rest.
// Size is UnknownSize until it is known.
type Layout struct {
	Size      int64
	ChunkSize int64
}

// Count is the number of chunks: 0 for an empty file, MaxChunks (the most there can be) while the
// size is unknown.
func (l Layout) Count() int {
	if l.Size < 0 {
		return MaxChunks
	}
	return int((l.Size + l.ChunkSize - 1) / l.ChunkSize)
}

// Offset is where chunk index starts.
func (l Layout) Offset(index int) int64 { return int64(index) * l.ChunkSize }

// Length is how long chunk index is, or may be at the most while the size is unknown.
func (l Layout) Length(index int) int64 {
	if l.Size < 0 {
		return l.ChunkSize
	}
	return min(l.ChunkSize, l.Size-l.Offset(index))
}
