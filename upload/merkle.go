package upload

import (
	"crypto/sha256"
	"encoding/base64"
	"io"
	"math/bits"
	"slices"
)

// LeafSize is how many bytes one leaf of the tree covers: 4 KiB. A challenge of 32 leaves then
// costs the client 128 KiB; with larger leaves the same bytes would be fewer, easier samples.
const LeafSize = 4 << 10

// blockLeaves is how many leaves make a block. A prover keeps one hash per block (32 bytes per
// 1 MiB of content) and reads the block again for the hashes below it.
const blockLeaves = 256

// BlockSize is how many bytes a prover reads again to prove one leaf.
const BlockSize = blockLeaves * LeafSize

// LeafCount is the number of leaves of content that is size bytes long.
func LeafCount(size int64) int64 { return (size + LeafSize - 1) / LeafSize }

// Hashes are domain-separated as in RFC 6962, section 2.1.
func leafHash(data []byte) Root {
	var buf [1 + LeafSize]byte
	return sha256.Sum256(append(buf[:1], data...))
}

func nodeHash(left, right Root) Root {
	var buf [1 + 2*sha256.Size]byte
	buf[0] = 1
	copy(buf[1:], left[:])
	copy(buf[1+sha256.Size:], right[:])
	return sha256.Sum256(buf[:])
}

// TreeHasher computes the Merkle tree (RFC 6962, section 2.1: SHA-256, leaves of LeafSize) of the
// bytes that are written to it in order. It never fails. The zero value is ready.
type TreeHasher struct {
	partial []byte // an unfinished leaf
	size    int64
	leaves  stack  // within the unfinished block
	inBlock int    // leaves in it
	blocks  []Root // hashes of the finished blocks
	keep    bool
	upper   stack // used instead of blocks when none are kept
}

// stack folds hashes of equal subtrees as they come: at any time it holds one hash per set bit of
// the number of hashes pushed.
type stack struct {
	hashes []Root
	n      uint64
}

func (s *stack) push(h Root) {
	for m := s.n; m&1 == 1; m >>= 1 {
		h = nodeHash(s.hashes[len(s.hashes)-1], h)
		s.hashes = s.hashes[:len(s.hashes)-1]
	}
	s.hashes = append(s.hashes, h)
	s.n++
}

// fold returns the root of all that was pushed, and of tail after it if it is there.
func (s *stack) fold(tail *Root) Root {
	hashes := s.hashes
	if tail == nil {
		tail = &hashes[len(hashes)-1]
		hashes = hashes[:len(hashes)-1]
	}
	h := *tail
	for _, left := range slices.Backward(hashes) {
		h = nodeHash(left, h)
	}
	return h
}

// NewTreeHasher returns a TreeHasher that keeps what Tree needs to prove leaves later: 32 bytes per
// MiB. The zero value keeps nothing and gives the root only.
func NewTreeHasher() *TreeHasher { return &TreeHasher{keep: true} }

// Write adds p to the content.
func (t *TreeHasher) Write(p []byte) (int, error) {
	n := len(p)
	t.size += int64(n)
	if len(t.partial) > 0 {
		k := min(LeafSize-len(t.partial), len(p))
		t.partial = append(t.partial, p[:k]...)
		p = p[k:]
		if len(t.partial) < LeafSize {
			return n, nil
		}
		t.addLeaf(t.partial)
		t.partial = t.partial[:0]
	}
	for len(p) >= LeafSize {
		t.addLeaf(p[:LeafSize])
		p = p[LeafSize:]
	}
	t.partial = append(t.partial, p...)
	return n, nil
}

func (t *TreeHasher) addLeaf(data []byte) {
	t.leaves.push(leafHash(data))
	if t.inBlock++; t.inBlock < blockLeaves {
		return
	}
	block := t.leaves.fold(nil)
	if t.keep {
		t.blocks = append(t.blocks, block)
	} else {
		t.upper.push(block)
	}
	t.leaves, t.inBlock = stack{hashes: t.leaves.hashes[:0]}, 0
}

// Sum returns the tree of all that was written and leaves the hasher able to take more. Only a
// hasher made by NewTreeHasher gives a tree that can prove.
func (t *TreeHasher) Sum() Tree {
	leaves := stack{hashes: slices.Clone(t.leaves.hashes), n: t.leaves.n}
	if len(t.partial) > 0 {
		leaves.push(leafHash(t.partial))
	}
	tree := Tree{Size: t.size, blocks: slices.Clone(t.blocks)}
	var tail *Root
	if leaves.n > 0 {
		h := leaves.fold(nil)
		tail = &h
	}
	if t.keep {
		if tail != nil {
			tree.blocks = append(tree.blocks, *tail)
		}
		tree.Root = subtreeRoot(tree.blocks)
		return tree
	}
	switch {
	case t.upper.n > 0:
		tree.Root = t.upper.fold(tail)
	case tail != nil:
		tree.Root = *tail
	default:
		tree.Root = sha256.Sum256(nil)
	}
	return tree
}

// Root returns the root of all that was written.
func (t *TreeHasher) Root() Root { return t.Sum().Root }

// Tree is the tree of some content: its root and, if it was made to prove, the hashes that proofs
// are built from.
type Tree struct {
	Size   int64
	Root   Root
	blocks []Root
}

// subtreeRoot is MTH of RFC 6962 over hashes of equal subtrees (the last may be smaller).
func subtreeRoot(hashes []Root) Root {
	switch len(hashes) {
	case 0:
		return sha256.Sum256(nil)
	case 1:
		return hashes[0]
	}
	k := splitPoint(int64(len(hashes)))
	return nodeHash(subtreeRoot(hashes[:k]), subtreeRoot(hashes[k:]))
}

// splitPoint is the largest power of two smaller than n (n > 1).
func splitPoint(n int64) int64 { return 1 << (bits.Len64(uint64(n-1)) - 1) }

// subtreePath is PATH of RFC 6962, section 2.1.1, over the same, nearest sibling first.
func subtreePath(index int64, hashes []Root) []Root {
	if len(hashes) <= 1 {
		return nil
	}
	k := splitPoint(int64(len(hashes)))
	if index < k {
		return append(subtreePath(index, hashes[:k]), subtreeRoot(hashes[k:]))
	}
	return append(subtreePath(index-k, hashes[k:]), subtreeRoot(hashes[:k]))
}

// Leaf is one leaf of a proof: the content's bytes there, and the hashes beside the way to the root.
type Leaf struct {
	Index int64  `json:"index"`
	Data  []byte `json:"data"` // base64 in JSON
	Path  Path   `json:"path"`
}

// Path is the hashes beside the way from a leaf to the root, nearest first. In JSON it is the base64
// of these, 32 bytes each, one after the other.
type Path []Root

// maxPath is how many hashes a path may have: more than any tree is high.
const maxPath = 64

// MarshalText writes base64.
func (p Path) MarshalText() ([]byte, error) {
	raw := make([]byte, 0, len(p)*len(Root{}))
	for _, h := range p {
		raw = append(raw, h[:]...)
	}
	return base64.StdEncoding.AppendEncode(nil, raw), nil
}

// UnmarshalText reads base64.
func (p *Path) UnmarshalText(text []byte) error {
	raw, err := base64.StdEncoding.AppendDecode(nil, text)
	if err != nil || len(raw)%len(Root{}) != 0 || len(raw) > maxPath*len(Root{}) {
		return &Error{Kind: Invalid, Detail: "A leaf's path is base64 of its 32-byte hashes. Send it so.", Err: err}
	}
	*p = make(Path, len(raw)/len(Root{}))
	for i := range *p {
		(*p)[i] = Root(raw[i*len(Root{}):])
	}
	return nil
}

// Prove reads the leaf's block from content and returns the leaf with its path to the root.
func (t *Tree) Prove(content io.ReaderAt, index int64) (Leaf, error) {
	const op = "upload.Tree.Prove"
	if index < 0 || index >= LeafCount(t.Size) {
		return Leaf{}, Errorf(Invalid, op, "", "There is no leaf %d.", index)
	}
	block := index / blockLeaves
	start := block * BlockSize
	buf := make([]byte, min(BlockSize, t.Size-start))
	if _, err := content.ReadAt(buf, start); err != nil && err != io.EOF {
		return Leaf{}, Wrap(Internal, op, "", err)
	}
	hashes := make([]Root, 0, blockLeaves)
	for off := 0; off < len(buf); off += LeafSize {
		hashes = append(hashes, leafHash(buf[off:min(off+LeafSize, len(buf))]))
	}
	if int(block) >= len(t.blocks) || subtreeRoot(hashes) != t.blocks[block] {
		return Leaf{}, Errorf(Conflict, op, "", "The file changed while it was being read.")
	}
	inBlock := index % blockLeaves
	off := inBlock * LeafSize
	return Leaf{
		Index: index,
		Data:  buf[off:min(off+LeafSize, int64(len(buf)))],
		Path:  append(subtreePath(inBlock, hashes), subtreePath(block, t.blocks)...),
	}, nil
}

// VerifyLeaf reports whether data is leaf index of the content of size bytes whose root is root
// (RFC 9162, section 2.1.3.2). It allocates nothing and accepts any input.
func VerifyLeaf(root Root, size int64, leaf Leaf) bool {
	got, ok := leafRoot(size, leaf)
	return ok && got == root
}

// leafRoot returns the root that a leaf of content of size bytes leads to; false if it cannot be one.
func leafRoot(size int64, leaf Leaf) (Root, bool) {
	count := LeafCount(size)
	if leaf.Index < 0 || leaf.Index >= count || int64(len(leaf.Data)) != min(LeafSize, size-leaf.Index*LeafSize) {
		return Root{}, false
	}
	fn, sn := uint64(leaf.Index), uint64(count-1)
	h := leafHash(leaf.Data)
	for _, sibling := range leaf.Path {
		if sn == 0 {
			return Root{}, false
		}
		if fn&1 == 1 || fn == sn {
			h = nodeHash(sibling, h)
			for fn&1 == 0 && fn != 0 {
				fn, sn = fn>>1, sn>>1
			}
		} else {
			h = nodeHash(h, sibling)
		}
		fn, sn = fn>>1, sn>>1
	}
	return h, sn == 0
}
