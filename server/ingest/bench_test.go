package ingest_test

import (
	"testing"

	"gantry/server/ingest"
)

// BenchmarkPutChunk is what a chunk costs beside its bytes: one of a single byte that is there already.
func BenchmarkPutChunk(b *testing.B) {
	e := newEngine(b)
	size := int64(1)
	opened, _, err := e.Init(b.Context(), owner, ingest.InitRequest{Name: "a", Size: &size})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := e.PutChunk(b.Context(), owner, opened.ID, 0, body([]byte{1})); err != nil {
			b.Fatal(err)
		}
	}
}
