package upload_test

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"gantry/internal/testenv"
	"gantry/upload"

	"github.com/pjbgf/sha1cd"
	"pgregory.net/rapid"
)

// content is size bytes that depend on seed and size.
func content(seed, size int) []byte {
	data := make([]byte, size)
	_, _ = rand.NewChaCha8(sha256.Sum256(fmt.Append(nil, seed, size))).Read(data)
	return data
}

// naive is RFC 6962, section 2.1, word for word.
type naive struct{ leaves [][]byte }

func newNaive(data []byte) naive {
	return naive{slices.Collect(slices.Chunk(data, upload.LeafSize))}
}

func (n naive) split() int {
	k := 1
	for k*2 < len(n.leaves) {
		k *= 2
	}
	return k
}

func (n naive) root() upload.Root {
	switch len(n.leaves) {
	case 0:
		return sha256.Sum256(nil)
	case 1:
		return sha256.Sum256(append([]byte{0}, n.leaves[0]...))
	}
	k := n.split()
	left, right := naive{n.leaves[:k]}.root(), naive{n.leaves[k:]}.root()
	return sha256.Sum256(slices.Concat([]byte{1}, left[:], right[:]))
}

func (n naive) path(m int) []upload.Root {
	if len(n.leaves) == 1 {
		return nil
	}
	if k := n.split(); m < k {
		return append(naive{n.leaves[:k]}.path(m), naive{n.leaves[k:]}.root())
	} else {
		return append(naive{n.leaves[k:]}.path(m-k), naive{n.leaves[:k]}.root())
	}
}

func treeOf(data []byte) upload.Tree {
	h := upload.NewTreeHasher()
	_, _ = h.Write(data)
	return h.Sum()
}

// rootOf uses the hasher that keeps nothing.
func rootOf(data []byte) upload.Root {
	var h upload.TreeHasher
	_, _ = h.Write(data)
	return h.Root()
}

func checkTree(t interface {
	Helper()
	Fatalf(string, ...any)
}, data []byte,
) {
	t.Helper()
	want := newNaive(data).root()
	tree := treeOf(data)
	if tree.Root != want || tree.Size != int64(len(data)) {
		t.Fatalf("%d bytes: root %v of %d, want %v", len(data), tree.Root, tree.Size, want)
	}
	if got := rootOf(data); got != want {
		t.Fatalf("%d bytes: the hasher that keeps nothing says %v, want %v", len(data), got, want)
	}
}

func TestTreeOfEverySmallSize(t *testing.T) {
	t.Parallel()
	data := content(1, 40*upload.LeafSize)
	for size := 0; size <= 3*upload.LeafSize+1; size += 61 {
		checkTree(t, data[:size])
	}
	for leaves := range 40 {
		for _, off := range []int{-1, 0, 1} {
			checkTree(t, data[:max(leaves*upload.LeafSize+off, 0)])
		}
	}
}

func TestTreeAroundBlocks(t *testing.T) {
	t.Parallel()
	data := content(2, 9*upload.BlockSize+2*upload.LeafSize)
	for blocks := 1; blocks <= 9; blocks++ {
		for _, off := range []int{-upload.LeafSize - 1, -upload.LeafSize, -1, 0, 1, upload.LeafSize, upload.LeafSize + 1} {
			checkTree(t, data[:blocks*upload.BlockSize+off])
		}
	}
}

func TestTreeOfRandomSizesAndWrites(t *testing.T) {
	t.Parallel()
	data := content(3, 24<<20)
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.IntRange(0, len(data)).Draw(t, "size")
		checkTree(t, data[:size])

		keeping, forgetting := upload.NewTreeHasher(), new(upload.TreeHasher)
		for rest := data[:size]; len(rest) > 0; {
			n := min(rapid.OneOf(rapid.IntRange(0, 3*upload.LeafSize), rapid.IntRange(0, 6<<20)).Draw(t, "write"), len(rest))
			_, _ = keeping.Write(rest[:n])
			_, _ = forgetting.Write(rest[:n])
			rest = rest[n:]
			if rapid.IntRange(0, 9).Draw(t, "look") == 0 { // Sum must not disturb what follows
				if so := data[:size-len(rest)]; keeping.Root() != rootOf(so) || forgetting.Root() != rootOf(so) {
					t.Fatalf("roots differ after %d bytes", len(so))
				}
			}
		}
		if want := rootOf(data[:size]); keeping.Root() != want || forgetting.Root() != want {
			t.Fatalf("%d bytes in pieces: %v and %v, want %v", size, keeping.Root(), forgetting.Root(), want)
		}
	})
}

func TestEveryLeafVerifies(t *testing.T) {
	t.Parallel()
	sizes := []int{1, upload.LeafSize - 1, upload.LeafSize, upload.LeafSize + 1, upload.BlockSize, upload.BlockSize + 1, 2*upload.BlockSize - 1}
	for leaves := 2; leaves <= 34; leaves++ {
		sizes = append(sizes, leaves*upload.LeafSize, leaves*upload.LeafSize-100)
	}
	for _, size := range sizes {
		data := content(4, size)
		tree, reference := treeOf(data), newNaive(data)
		for i := range upload.LeafCount(tree.Size) {
			leaf, err := tree.Prove(bytes.NewReader(data), i)
			if err != nil {
				t.Fatalf("%d bytes, leaf %d: %v", size, i, err)
			}
			if !bytes.Equal(leaf.Data, reference.leaves[i]) {
				t.Fatalf("%d bytes, leaf %d: wrong data", size, i)
			}
			if size < upload.BlockSize && !slices.Equal(leaf.Path, reference.path(int(i))) {
				t.Fatalf("%d bytes, leaf %d: wrong path", size, i)
			}
			if !upload.VerifyLeaf(tree.Root, tree.Size, leaf) {
				t.Fatalf("%d bytes, leaf %d does not verify", size, i)
			}
		}
	}
}

func TestLeavesOfALargeFileVerify(t *testing.T) {
	t.Parallel()
	data := content(5, 33<<20+4321)
	tree, reference := treeOf(data), newNaive(data)
	for _, i := range []int64{0, 1, 255, 256, 257, 4095, 4096, 8191, 8192, upload.LeafCount(tree.Size) - 1} {
		leaf, err := tree.Prove(bytes.NewReader(data), i)
		if err != nil || !upload.VerifyLeaf(tree.Root, tree.Size, leaf) || !slices.Equal(leaf.Path, reference.path(int(i))) {
			t.Errorf("leaf %d: %v", i, err)
		}
	}
}

// Whatever is changed in a proof, it fails.
func TestChangedProofsFail(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.IntRange(1, 70*upload.LeafSize).Draw(t, "size")
		data := content(6, size)
		tree := treeOf(data)
		count := upload.LeafCount(tree.Size)
		leaf, err := tree.Prove(bytes.NewReader(data), rapid.Int64Range(0, count-1).Draw(t, "leaf"))
		if err != nil || !upload.VerifyLeaf(tree.Root, tree.Size, leaf) {
			t.Fatalf("the true proof fails: %v", err)
		}
		root, size64 := tree.Root, tree.Size
		leaf.Data, leaf.Path = slices.Clone(leaf.Data), slices.Clone(leaf.Path)

		changes := map[string]func(){
			"a bit of the data": func() { flip(t, leaf.Data) },
			"a bit of the root": func() { flip(t, root[:]) },
			"the index": func() {
				leaf.Index = rapid.OneOf(rapid.Int64Range(0, count), rapid.Int64()).Filter(func(i int64) bool { return i != leaf.Index }).Draw(t, "index")
			},
			"shorter data":  func() { leaf.Data = leaf.Data[:len(leaf.Data)-1] },
			"longer data":   func() { leaf.Data = append(leaf.Data, 0) },
			"a longer path": func() { leaf.Path = append(leaf.Path, upload.Root{}) },
		}
		if len(leaf.Path) > 0 {
			changes["a bit of the path"] = func() {
				flip(t, leaf.Path[rapid.IntRange(0, len(leaf.Path)-1).Draw(t, "hash")][:])
			}
			changes["a shorter path"] = func() { leaf.Path = leaf.Path[:len(leaf.Path)-1] }
			changes["a hash left out"] = func() { leaf.Path = leaf.Path[1:] }
		}
		if len(leaf.Path) > 1 {
			changes["the path turned round"] = func() { slices.Reverse(leaf.Path) }
		}
		if leaf.Index == count-1 {
			// Only the last leaf tells the size: the others verify for any size that gives them the
			// same path. The server takes the size from its own blob, never from the proof.
			changes["the size"] = func() {
				size64 = rapid.OneOf(rapid.Int64Range(-1, 80*upload.LeafSize), rapid.Int64()).Filter(func(n int64) bool { return n != size64 }).Draw(t, "other size")
			}
		}
		name := rapid.SampledFrom(slices.Sorted(keys(changes))).Draw(t, "change")
		changes[name]()
		if upload.VerifyLeaf(root, size64, leaf) {
			t.Fatalf("a proof verifies in spite of a change of %s", name)
		}
	})
}

func keys[K comparable, V any](m map[K]V) func(func(K) bool) {
	return func(yield func(K) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

func flip(t *rapid.T, b []byte) {
	b[rapid.IntRange(0, len(b)-1).Draw(t, "byte")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
}

// Without the prefixes 0 and 1 an inner node's 64 bytes would be a file with the same root.
func TestNodesAreNoLeaves(t *testing.T) {
	t.Parallel()
	data := content(7, 2*upload.LeafSize)
	left, right := rootOf(data[:upload.LeafSize]), rootOf(data[upload.LeafSize:])
	node := slices.Concat(left[:], right[:])
	root := rootOf(data)
	for _, forged := range [][]byte{node, append([]byte{1}, node...), append([]byte{0}, node...)} {
		if rootOf(forged) == root || upload.VerifyLeaf(root, int64(len(forged)), upload.Leaf{Data: forged}) {
			t.Errorf("%d bytes made from the tree's own hashes have its root", len(forged))
		}
	}
	if rootOf(nil) == rootOf([]byte{}) != true || rootOf(nil) == rootOf([]byte{0}) {
		t.Error("the empty file and a zero byte have one root")
	}
}

func TestVerifyLeafTakesAnything(t *testing.T) {
	t.Parallel()
	for _, size := range []int64{math.MinInt64, -1, 0, 1, upload.LeafSize, math.MaxInt64 - 1, math.MaxInt64} {
		for _, index := range []int64{math.MinInt64, -1, 0, 1, math.MaxInt64} {
			if upload.VerifyLeaf(upload.Root{}, size, upload.Leaf{Index: index, Data: nil, Path: make([]upload.Root, 70)}) {
				t.Errorf("size %d, index %d verify", size, index)
			}
		}
	}
}

func TestVerifyLeafAllocatesNothing(t *testing.T) {
	data := content(8, 3*upload.BlockSize+5)
	tree := treeOf(data)
	leaf, err := tree.Prove(bytes.NewReader(data), 300)
	if err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(50, func() { upload.VerifyLeaf(tree.Root, tree.Size, leaf) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

type failingReader struct{ err error }

func (r failingReader) ReadAt([]byte, int64) (int, error) { return 0, r.err }

func TestProveRefuses(t *testing.T) {
	t.Parallel()
	data := content(9, upload.BlockSize+10)
	tree := treeOf(data)
	changed := slices.Clone(data)
	changed[5] ^= 1
	broken := errors.New("broken disk")
	for _, c := range []struct {
		name  string
		from  io.ReaderAt
		index int64
		want  error
	}{
		{"negative index", bytes.NewReader(data), -1, upload.Invalid},
		{"index past the end", bytes.NewReader(data), upload.LeafCount(tree.Size), upload.Invalid},
		{"changed file", bytes.NewReader(changed), 200, upload.Conflict},
		{"cut file", bytes.NewReader(data[:100]), 0, upload.Conflict},
		{"unreadable file", failingReader{broken}, 0, broken},
	} {
		if _, err := tree.Prove(c.from, c.index); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	var forgetful upload.TreeHasher
	_, _ = forgetful.Write(data)
	noProofs := forgetful.Sum()
	if _, err := noProofs.Prove(bytes.NewReader(data), 0); err == nil {
		t.Error("a tree that kept nothing proves a leaf")
	}
}

// Files that collide in SHA-1, and even in the hint, are different content.
func TestCollidingFilesHaveDifferentRoots(t *testing.T) {
	t.Parallel()
	for name, pair := range testenv.Collisions(t) {
		a, b := pair[0], pair[1]
		if len(a) != len(b) || bytes.Equal(a, b) || sha1.Sum(a) != sha1.Sum(b) {
			t.Fatalf("%s is no collision pair", name)
		}
		if _, found := sha1cd.Sum(a); !found {
			t.Errorf("%s: sha1cd does not see the collision", name)
		}
		if rootOf(a) == rootOf(b) {
			t.Errorf("%s: one root for two files", name)
		}
		n := min(len(a), upload.HintLength)
		if name == "shattered" && upload.SumSHA1(a[:n]) != upload.SumSHA1(b[:n]) {
			t.Errorf("%s: the hints differ; this pair was chosen because they do not", name)
		}
	}
}

func FuzzVerifyLeaf(f *testing.F) {
	data := content(10, 13*upload.LeafSize+77)
	tree := treeOf(data)
	for i := range upload.LeafCount(tree.Size) {
		leaf, err := tree.Prove(bytes.NewReader(data), i)
		if err != nil {
			f.Fatal(err)
		}
		var path []byte
		for _, h := range leaf.Path {
			path = append(path, h[:]...)
		}
		f.Add(tree.Size, leaf.Index, leaf.Data, path)
	}
	f.Fuzz(func(t *testing.T, size, index int64, leafData, rawPath []byte) {
		leaf := upload.Leaf{Index: index, Data: leafData}
		for len(rawPath) >= len(upload.Root{}) {
			leaf.Path = append(leaf.Path, upload.Root(rawPath))
			rawPath = rawPath[len(upload.Root{}):]
		}
		upload.VerifyLeaf(upload.Root{}, size, leaf) // must not panic
		if !upload.VerifyLeaf(tree.Root, tree.Size, leaf) {
			return
		}
		want, err := tree.Prove(bytes.NewReader(data), index)
		if err != nil || !bytes.Equal(want.Data, leaf.Data) || !slices.Equal(want.Path, leaf.Path) {
			t.Fatalf("a leaf that is not in the tree verifies: index %d", index)
		}
	})
}

func BenchmarkTreeHasher(b *testing.B) {
	data := content(11, 8<<20)
	for name, make := range map[string]func() *upload.TreeHasher{
		"root only": func() *upload.TreeHasher { return new(upload.TreeHasher) },
		"to prove":  upload.NewTreeHasher,
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				h := make()
				_, _ = h.Write(data)
				h.Root()
			}
		})
	}
}
