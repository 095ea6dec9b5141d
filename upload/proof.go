package upload

import (
	"encoding/json"
	"math/rand/v2"
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

// NewChallenge asks for ChallengeLeaves different leaves of content of size bytes: those that seed
// decides, which nobody outside the server must know or be able to change at will. Who asks often for
// the same must get the same seed: else he who lacks a few leaves asks until they are not among those.
func NewChallenge(size int64, seed [32]byte, now time.Time) Challenge {
	count := LeafCount(size)
	c := Challenge{ID: NewID(now), Size: size, ExpiresAt: now.Add(ChallengeTTL)}
	if count <= ChallengeLeaves {
		for i := range count {
			c.Leaves = append(c.Leaves, i)
		}
		return c
	}
	draw := rand.New(rand.NewChaCha8(seed)) //nolint:gosec // ChaCha8 with a secret seed cannot be guessed
	drawn := make(map[int64]bool, ChallengeLeaves)
	for len(c.Leaves) < ChallengeLeaves {
		if i := draw.Int64N(count); !drawn[i] {
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
	Challenge string `json:"challenge"`
	Leaves    []Leaf `json:"leaves"`
}

// Satisfies reports whether the proof answers c with the right bytes: all leaves, in order, each
// leading to the root. A decoy is never satisfied; refusing it takes as long as refusing a wrong proof.
func (p *Proof) Satisfies(c *Challenge) bool {
	root, ok := p.root(c)
	return ok && c.BlobID != "" && root == c.Root
}

// Coherent reports whether the proof answers c with leaves of some one content, whichever: all that
// an honest client can be asked for whose content is not the server's. It does not depend on what the
// server has.
func (p *Proof) Coherent(c *Challenge) bool {
	_, ok := p.root(c)
	return ok
}

// root is where all leaves that c asks for lead.
func (p *Proof) root(c *Challenge) (root Root, ok bool) {
	if p.Challenge != c.ID || len(p.Leaves) != len(c.Leaves) {
		return Root{}, false
	}
	for i, leaf := range p.Leaves {
		got, leads := leafRoot(c.Size, leaf)
		if !leads || leaf.Index != c.Leaves[i] || i > 0 && got != root {
			return Root{}, false
		}
		root = got
	}
	return root, len(p.Leaves) > 0
}
