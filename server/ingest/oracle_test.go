package ingest_test

import (
	"testing"

	"gantry/meta"
	"gantry/server/ingest"
	"gantry/upload"
)

// TestWrongProofsTellNothing: what wrong proofs lead to is the same for content that is here and for
// content that is not. If they were counted against the prover for the one only, five of them and then
// a right one for content of his own would tell which it was.
func TestWrongProofsTellNothing(t *testing.T) {
	e := newEngine(t)
	e.close()
	e.scope = meta.ScopeGlobal
	e.open()
	ctx := t.Context()
	secret, unknown := random(40, 2<<20), random(41, 2<<20)
	e.mustUpload(secret) // by owner
	size := int64(len(secret))
	begin := func(who string) string {
		t.Helper()
		o, _, err := e.Init(ctx, who, ingest.InitRequest{Name: "a", Size: &size})
		if err != nil {
			t.Fatal(err)
		}
		return o.ID
	}
	// guess answers a challenge for target with leaves of other content, changed by spoil.
	guess := func(who string, target []byte, spoil func(p *upload.Proof)) {
		t.Helper()
		id, sha1 := begin(who), upload.SumSHA1(target)
		r, err := e.Instant(ctx, who, id, ingest.InstantRequest{SHA1: sha1})
		if err != nil || r.Challenge == nil {
			t.Fatalf("no challenge: %+v %v", r, err)
		}
		p := prove(t, r.Challenge, random(42, 2<<20))
		spoil(p)
		if r, err := e.Instant(ctx, who, id, ingest.InstantRequest{SHA1: sha1, Proof: p}); err != nil || r.Answer != nil || r.Challenge != nil {
			t.Fatalf("a wrong proof: %+v %v", r, err)
		}
	}
	for _, c := range []struct {
		name  string
		spoil func(p *upload.Proof)
		after bool // whether instant upload goes on
	}{
		{"leaves of other content", func(*upload.Proof) {}, true},
		{"leaves of no content", func(p *upload.Proof) { p.Leaves[3].Data[0] ^= 1 }, false},
		{"a leaf too few", func(p *upload.Proof) { p.Leaves = p.Leaves[1:] }, false},
		{"no leaves", func(p *upload.Proof) { p.Leaves = nil }, false},
	} {
		for i, target := range [][]byte{secret, unknown} {
			who := c.name + string(rune('0'+i))
			own := random(uint64(50+i), 2<<20)
			id := begin(who)
			e.mustPutAs(who, id, own)
			if _, err := e.Complete(ctx, who, id, ingest.CompleteRequest{}); err != nil {
				t.Fatal(err)
			}
			e.transfer()
			for range 6 {
				guess(who, target, c.spoil)
			}
			r, err := e.instant(ctx, who, begin(who), own)
			if err != nil || (r.Answer != nil) != c.after {
				t.Errorf("%s, content known: %v: instant upload of one's own gives %+v %v", c.name, i == 0, r.Answer, err)
			}
		}
	}
}

// mustPutAs is mustPut for another owner.
func (e *engine) mustPutAs(who, id string, data []byte) {
	e.t.Helper()
	u, err := e.staging.Get(id)
	if err != nil {
		e.t.Fatal(err)
	}
	layout := u.Layout()
	for i := range layout.Count() {
		off := layout.Offset(i)
		if err := e.PutChunk(e.t.Context(), who, id, i, body(data[off:off+layout.Length(i)])); err != nil {
			e.t.Fatal(err)
		}
	}
}
