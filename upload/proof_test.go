package upload_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"gantry/upload"

	"pgregory.net/rapid"
)

var noon = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

// prove answers a challenge as a client that has the content does.
func prove(t testing.TB, c *upload.Challenge, data []byte) upload.Proof {
	t.Helper()
	tree := treeOf(data)
	p := upload.Proof{Challenge: c.ID}
	for _, i := range c.Leaves {
		leaf, err := tree.Prove(bytes.NewReader(data), i)
		if err != nil {
			t.Fatal(err)
		}
		p.Leaves = append(p.Leaves, leaf)
	}
	return p
}

// challengeFor is what the server asks about data that it has.
func challengeFor(data []byte) upload.Challenge {
	c := upload.NewChallenge(int64(len(data)), [32]byte{}, noon)
	c.BlobID, c.Root, c.SHA1 = "some blob", rootOf(data), upload.SumSHA1(data)
	return c
}

func TestChallengeDrawsDifferentLeaves(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.OneOf(rapid.Int64Range(0, 80*upload.LeafSize), rapid.Int64Range(0, upload.MaxSize)).Draw(t, "size")
		c := upload.NewChallenge(size, [32]byte{1}, noon)
		count := upload.LeafCount(size)
		if want := min(count, upload.ChallengeLeaves); int64(len(c.Leaves)) != want {
			t.Fatalf("%d leaves, want %d", len(c.Leaves), want)
		}
		sorted := slices.Sorted(slices.Values(c.Leaves))
		if len(slices.Compact(sorted)) != len(c.Leaves) {
			t.Fatalf("a leaf is asked for twice: %v", c.Leaves)
		}
		for _, i := range c.Leaves {
			if i < 0 || i >= count {
				t.Fatalf("leaf %d of %d", i, count)
			}
		}
		if !c.ExpiresAt.Equal(noon.Add(upload.ChallengeTTL)) {
			t.Fatalf("expires %v", c.ExpiresAt)
		}
	})
}

// Challenges with different seeds ask for different leaves, those with the same for the same.
func TestChallengesDiffer(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	covered := map[int64]bool{}
	for i := range 200 {
		c := upload.NewChallenge(upload.MinInstantSize, [32]byte{byte(i)}, noon)
		if again := upload.NewChallenge(upload.MinInstantSize, [32]byte{byte(i)}, noon); again.ID == c.ID || !slices.Equal(again.Leaves, c.Leaves) {
			t.Fatalf("asked again: %v, before %v", again, c)
		}
		seen[c.ID] = true
		seen[fmt.Sprint(c.Leaves)] = true
		for _, i := range c.Leaves {
			covered[i] = true
		}
	}
	if len(seen) != 400 {
		t.Errorf("%d different ids and draws of 400", len(seen))
	}
	if len(covered) != 256 {
		t.Errorf("200 challenges reached %d of 256 leaves", len(covered))
	}
}

func TestProofSatisfies(t *testing.T) {
	t.Parallel()
	data := content(20, 2<<20+12345)
	c := challengeFor(data)
	good := prove(t, &c, data)
	if !good.Satisfies(&c) {
		t.Fatal("the true proof does not satisfy its challenge")
	}

	clone := func() upload.Proof {
		p := upload.Proof{Challenge: good.Challenge, Leaves: slices.Clone(good.Leaves)}
		for i := range p.Leaves {
			p.Leaves[i].Data = slices.Clone(p.Leaves[i].Data)
		}
		return p
	}
	for name, change := range map[string]func(p *upload.Proof){
		"another challenge's id": func(p *upload.Proof) { p.Challenge = upload.NewID(noon) },
		"one leaf too few":       func(p *upload.Proof) { p.Leaves = p.Leaves[:len(p.Leaves)-1] },
		"one leaf too many":      func(p *upload.Proof) { p.Leaves = append(p.Leaves, p.Leaves[0]) },
		"no leaves":              func(p *upload.Proof) { p.Leaves = nil },
		"another order":          func(p *upload.Proof) { p.Leaves[0], p.Leaves[1] = p.Leaves[1], p.Leaves[0] },
		"one leaf for all": func(p *upload.Proof) {
			for i := range p.Leaves {
				p.Leaves[i] = p.Leaves[0]
			}
		},
		"a wrong byte in the last leaf": func(p *upload.Proof) { p.Leaves[len(p.Leaves)-1].Data[0] ^= 1 },
	} {
		p := clone()
		change(&p)
		if p.Satisfies(&c) {
			t.Errorf("%s satisfies", name)
		}
	}

	other := challengeFor(data)
	if good.Satisfies(&other) {
		t.Error("an answer to one challenge satisfies another")
	}
	decoy := c
	decoy.BlobID = ""
	if good.Satisfies(&decoy) {
		t.Error("a decoy is satisfied")
	}
	if empty := (upload.Challenge{}); (&upload.Proof{}).Satisfies(&empty) {
		t.Error("nothing satisfies nothing")
	}
}

// A decoy cannot be told from a challenge for content that is known.
func TestChallengeJSONHidesWhatTheServerKnows(t *testing.T) {
	t.Parallel()
	real := challengeFor(content(21, 1<<20))
	real.Owner, real.UploadID = "somebody", "n-00000000000000000000000000"
	decoy := upload.Challenge{ID: real.ID, Leaves: real.Leaves, ExpiresAt: real.ExpiresAt}
	a, errA := json.Marshal(real)
	b, errB := json.Marshal(decoy)
	if errA != nil || errB != nil || !bytes.Equal(a, b) {
		t.Errorf("%s\n%s (%v, %v)", a, b, errA, errB)
	}
	want := `{"id":"` + real.ID + `","leaves":[`
	if !bytes.HasPrefix(a, []byte(want)) || !bytes.HasSuffix(a, []byte(`],"leaf_size":4096,"expires_at":"2026-03-04T12:05:00Z"}`)) {
		t.Errorf("got %s", a)
	}
}

func sameProof(a, b upload.Proof) bool {
	return a.Challenge == b.Challenge && slices.EqualFunc(a.Leaves, b.Leaves, func(x, y upload.Leaf) bool {
		return x.Index == y.Index && bytes.Equal(x.Data, y.Data) && slices.Equal(x.Path, y.Path)
	})
}

func TestProofJSONRoundTrip(t *testing.T) {
	t.Parallel()
	data := content(22, 3<<20+1)
	c := challengeFor(data)
	p := prove(t, &c, data)
	wire, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	var back upload.Proof
	if err := json.Unmarshal(wire, &back); err != nil {
		t.Fatal(err)
	}
	if !sameProof(p, back) || !back.Satisfies(&c) {
		t.Error("the proof changed on its way")
	}
}

// The wire form is written by clients in other languages, so it is spelled out once.
func TestProofJSONByHand(t *testing.T) {
	t.Parallel()
	hash := upload.Root{1, 2, 3}
	p := upload.Proof{Challenge: "abc", Leaves: []upload.Leaf{{Index: 7, Data: []byte("hello"), Path: upload.Path{hash, {}}}}}
	got, err := json.Marshal(p)
	want := `{"challenge":"abc","leaves":[{"index":7,"data":"aGVsbG8=","path":"` +
		base64.StdEncoding.EncodeToString(append(hash[:], make([]byte, 32)...)) + `"}]}`
	if err != nil || string(got) != want {
		t.Errorf("got  %s\nwant %s (%v)", got, want, err)
	}
}

func TestProofJSONRefuses(t *testing.T) {
	t.Parallel()
	path := func(n int) string {
		return `{"leaves":[{"path":"` + base64.StdEncoding.EncodeToString(make([]byte, n)) + `"}]}`
	}
	for name, in := range map[string]string{
		"not JSON":          `{`,
		"an array":          `[]`,
		"data not base64":   `{"leaves":[{"index":0,"data":"%","path":""}]}`,
		"path not base64":   `{"leaves":[{"index":0,"data":"","path":"%"}]}`,
		"path of 31 bytes":  path(31),
		"path of 65 hashes": path(65 * 32),
		"a fraction":        `{"leaves":[{"index":0.5}]}`,
		"an index too long": `{"leaves":[{"index":9223372036854775808}]}`,
	} {
		var p upload.Proof
		err := json.Unmarshal([]byte(in), &p)
		if err == nil {
			t.Errorf("%s: taken", name)
		}
		if strings.HasPrefix(name, "path") && !errors.Is(err, upload.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzProofJSON(f *testing.F) {
	data := content(23, 1<<20)
	c := challengeFor(data)
	c.Leaves = c.Leaves[:2]
	wire, err := json.Marshal(prove(f, &c, data))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(wire)
	f.Add([]byte(`{"challenge":"x","leaves":[{"index":-1,"data":"AA==","path":""}]}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, in []byte) {
		var p, back upload.Proof
		if json.Unmarshal(in, &p) != nil {
			return
		}
		p.Satisfies(&c) // must not panic
		again, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(again, &back); err != nil || !sameProof(p, back) {
			t.Fatalf("%q came back different: %v", in, err)
		}
	})
}

func BenchmarkVerifyProof(b *testing.B) {
	data := content(24, 64<<20)
	c := challengeFor(data)
	p := prove(b, &c, data)
	b.ReportAllocs()
	for b.Loop() {
		if !p.Satisfies(&c) {
			b.Fatal("does not satisfy")
		}
	}
}
