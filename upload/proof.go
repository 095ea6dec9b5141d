package upload

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"time"
)

// Instant upload's limits.
const (
	MinInstantSize  int64 = 1 << 20         // smaller files are cheaper to send than to prove
	ChallengeLeaves       = 32              // leaves asked for; all of them if there are fewer
	ChallengeTTL          = 5 * time.Minute // how long a challenge may be answered
)

// Challenge asks a client to show certain leaves of the content whose SHA-1 it named. It may be
// answered once. Whether the server knows that content cannot be told from the challenge.
type Challenge struct {
	ID        string
	Leaves    []int64
	ExpiresAt time.Time

	// Server side only.
	Owner    string
	UploadID string
	SHA1     SHA1
	BlobID   string // empty: a decoy, which no answer satisfies
	Root     Root
	Size     int64
}

// NewChallenge draws ChallengeLeaves different leaves of content of size bytes at random.
func NewChallenge(size int64, now time.Time) Challenge {
	count := LeafCount(size)
	c := Challenge{ID: NewID(now), Size: size, ExpiresAt: now.Add(ChallengeTTL)}
	if count <= ChallengeLeaves {
		for i := range count {
			c.Leaves = append(c.Leaves, i)
		}
		return c
	}
	drawn := make(map[int64]bool, ChallengeLeaves)
	for len(c.Leaves) < ChallengeLeaves {
		n, err := rand.Int(rand.Reader, big.NewInt(count))
		if err != nil {
			panic(err) // cannot happen: crypto/rand never fails and count is positive
		}
		if i := n.Int64(); !drawn[i] {
			drawn[i] = true
			c.Leaves = append(c.Leaves, i)
		}
	}
	return c
}

// MarshalJSON writes what a client may see.
func (c Challenge) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		ID        string    `json:"id"`
		Leaves    []int64   `json:"leaves"`
		LeafSize  int       `json:"leaf_size"`
		ExpiresAt time.Time `json:"expires_at"`
	}{c.ID, c.Leaves, LeafSize, c.ExpiresAt.UTC()})
}

// Proof answers a challenge: its leaves in the order in which they were asked for.
type Proof struct {
	Challenge string
	Leaves    []Leaf
}

// Satisfies reports whether the proof answers c with the right bytes: all leaves, in order, each
// leading to the root. A decoy is never satisfied.
func (p *Proof) Satisfies(c *Challenge) bool {
	if c.BlobID == "" || p.Challenge != c.ID || len(p.Leaves) != len(c.Leaves) {
		return false
	}
	for i, leaf := range p.Leaves {
		if leaf.Index != c.Leaves[i] || !VerifyLeaf(c.Root, c.Size, leaf) {
			return false
		}
	}
	return true
}

// proofJSON is the proof on the wire: data and path in base64, the path as its 32-byte hashes one
// after the other.
type proofJSON struct {
	Challenge string     `json:"challenge"`
	Leaves    []leafJSON `json:"leaves"`
}

type leafJSON struct {
	Index int64  `json:"index"`
	Data  []byte `json:"data"`
	Path  string `json:"path"`
}

// MarshalJSON writes the proof's wire form.
func (p Proof) MarshalJSON() ([]byte, error) {
	wire := proofJSON{Challenge: p.Challenge, Leaves: make([]leafJSON, len(p.Leaves))}
	for i, leaf := range p.Leaves {
		path := make([]byte, 0, len(leaf.Path)*len(Root{}))
		for _, h := range leaf.Path {
			path = append(path, h[:]...)
		}
		wire.Leaves[i] = leafJSON{leaf.Index, leaf.Data, base64.StdEncoding.EncodeToString(path)}
	}
	return json.Marshal(wire)
}

// UnmarshalJSON reads the proof's wire form; what it accepts is bounded by the length of b.
func (p *Proof) UnmarshalJSON(b []byte) error {
	var wire proofJSON
	if err := json.Unmarshal(b, &wire); err != nil {
		return &Error{Kind: Invalid, Detail: "The proof is not as documented: {challenge, leaves: [{index, data, path}]}.", Err: err}
	}
	if len(wire.Leaves) > ChallengeLeaves {
		return Errorf(Invalid, "", "", "A proof has at most %d leaves.", ChallengeLeaves)
	}
	p.Challenge, p.Leaves = wire.Challenge, make([]Leaf, len(wire.Leaves))
	for i, leaf := range wire.Leaves {
		raw, err := base64.StdEncoding.DecodeString(leaf.Path)
		if err != nil || len(raw)%len(Root{}) != 0 || len(raw) > 64*len(Root{}) {
			return &Error{Kind: Invalid, Detail: "A leaf's path is base64 of its 32-byte hashes.", Err: err}
		}
		path := make([]Root, len(raw)/len(Root{}))
		for j := range path {
			path[j] = Root(raw[j*len(Root{}):])
		}
		p.Leaves[i] = Leaf{leaf.Index, leaf.Data, path}
	}
	return nil
}
