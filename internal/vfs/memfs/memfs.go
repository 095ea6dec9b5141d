// Package memfs is a file system in memory that can crash: it remembers what was synced and what was
// not, and after a crash only what was synced can be relied upon.
package memfs

import (
	"cmp"
	"io/fs"
	"maps"
	"math"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"gantry/internal/vfs"
)

// sectorSize is what a disk writes whole or not at all, bytes.
const sectorSize = 512

// FS is a file system in memory. It is safe for concurrent use.
type FS struct {
	now func() time.Time

	mu    sync.Mutex
	root  *inode
	total int64
	free  int64
}

// inode is a file or a directory.
type inode struct {
	dir   bool
	mtime time.Time

	// Of a file: what reads return, what is on the disk, and which sectors of data were written
	// since the last sync.
	data   []byte
	synced []byte
	dirty  map[int64]struct{}

	// Of a directory: its entries, and those that are on the disk.
	entries       map[string]*inode
	syncedEntries map[string]*inode
}

func newDir(now time.Time) *inode {
	return &inode{dir: true, mtime: now, entries: map[string]*inode{}, syncedEntries: map[string]*inode{}}
}

// New returns an empty file system with endless space. Files get their mtimes from now (nil: time.Now).
func New(now func() time.Time) *FS {
	if now == nil {
		now = time.Now
	}
	return &FS{now: now, root: newDir(now()), total: math.MaxInt64, free: math.MaxInt64}
}

// SetSpace sets what Space returns; writing does not change it. With free ≤ 0 writes that make a
// file longer fail with ENOSPC.
func (m *FS) SetSpace(total, free int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.total, m.free = total, free
}

// Kill returns what a new process finds after this one was killed: all that was written, synced or
// not, and what was not synced is still not. The old file system may be used on, without effect on
// the new one.
func (m *FS) Kill() *FS {
	m.mu.Lock()
	defer m.mu.Unlock()
	seen := map[*inode]*inode{}
	return &FS{now: m.now, root: m.root.clone(seen), total: m.total, free: m.free}
}

func (n *inode) clone(seen map[*inode]*inode) *inode {
	if n == nil {
		return nil
	}
	if c, ok := seen[n]; ok {
		return c
	}
	c := &inode{dir: n.dir, mtime: n.mtime, data: slices.Clone(n.data), synced: slices.Clone(n.synced), dirty: maps.Clone(n.dirty)}
	seen[n] = c
	if n.dir {
		c.entries, c.syncedEntries = map[string]*inode{}, map[string]*inode{}
		for name, child := range n.entries {
			c.entries[name] = child.clone(seen)
		}
		for name, child := range n.syncedEntries {
			c.syncedEntries[name] = child.clone(seen)
		}
	}
	return c
}

// Crash returns what is found after a power cut: everything that was synced and, as rng has it, any
// part of what was not: each directory entry is old or new, each file's length is old or new, each
// sector is old or new. All of it is then on the disk. A renamed file whose directory was not
// synced may have both names or none.
func (m *FS) Crash(rng *rand.Rand) *FS {
	m.mu.Lock()
	defer m.mu.Unlock()
	seen := map[*inode]*inode{}
	return &FS{now: m.now, root: m.root.crash(rng, seen), total: m.total, free: m.free}
}

// mood draws how much of what was not synced survives: nothing, all, or a coin for each piece.
func mood(rng *rand.Rand) func() bool {
	switch rng.IntN(3) {
	case 0:
		return func() bool { return false }
	case 1:
		return func() bool { return true }
	default:
		return func() bool { return rng.IntN(2) == 0 }
	}
}

func (n *inode) crash(rng *rand.Rand, seen map[*inode]*inode) *inode {
	if c, ok := seen[n]; ok {
		return c
	}
	c := &inode{dir: n.dir, mtime: n.mtime}
	seen[n] = c
	survives := mood(rng)
	if !n.dir {
		c.data = n.crashData(survives)
		c.synced = slices.Clone(c.data)
		return c
	}
	c.entries = map[string]*inode{}
	names := maps.Clone(n.entries)
	maps.Copy(names, n.syncedEntries)
	for _, name := range slices.Sorted(maps.Keys(names)) { // in order: the same seed, the same crash
		child, was := n.entries[name], n.syncedEntries[name]
		if child != was && !survives() {
			child = was
		}
		if child != nil {
			c.entries[name] = child.crash(rng, seen)
		}
	}
	c.syncedEntries = maps.Clone(c.entries)
	return c
}

func (n *inode) crashData(survives func() bool) []byte {
	size := len(n.synced)
	if len(n.data) != size && survives() {
		size = len(n.data)
	}
	data := make([]byte, size)
	copy(data, n.synced)
	for _, sector := range slices.Sorted(maps.Keys(n.dirty)) {
		if survives() {
			from := min(sector*sectorSize, int64(size))
			to := min(from+sectorSize, int64(size), int64(len(n.data)))
			if from < to {
				copy(data[from:to], n.data[from:to])
			}
		}
	}
	return data
}

// find returns the inode of a name, nil if there is none, and the directory it is or would be in,
// nil if that is not there. Callers hold mu.
func (m *FS) find(name string) (dir, node *inode, base string) {
	name = path.Clean(name)
	if name == "." {
		return nil, m.root, "."
	}
	dir = m.root
	parent, base := path.Split(name)
	for part := range strings.SplitSeq(strings.TrimSuffix(parent, "/"), "/") {
		if part == "" {
			continue
		}
		if dir = dir.entries[part]; dir == nil || !dir.dir {
			return nil, nil, base
		}
	}
	return dir, dir.entries[base], base
}

func pathError(op, name string, err error) error {
	return &fs.PathError{Op: op, Path: name, Err: err}
}

func valid(op, name string) error {
	if !fs.ValidPath(name) {
		return pathError(op, name, fs.ErrInvalid)
	}
	return nil
}

// OpenFile is part of vfs.FS.
func (m *FS) OpenFile(name string, flag int, _ fs.FileMode) (vfs.File, error) {
	if err := valid("open", name); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	dir, node, base := m.find(name)
	switch {
	case node == nil && (dir == nil || flag&vfs.Create == 0):
		return nil, pathError("open", name, fs.ErrNotExist)
	case node == nil:
		node = &inode{mtime: m.now()}
		dir.entries[base], dir.mtime = node, node.mtime
	case flag&(vfs.Create|vfs.Excl) == vfs.Create|vfs.Excl:
		return nil, pathError("open", name, fs.ErrExist)
	case node.dir:
		return nil, pathError("open", name, fs.ErrInvalid)
	}
	if flag&vfs.Trunc != 0 {
		node.truncate(0, m.now())
	}
	return &file{fs: m, node: node, name: name, writable: flag&vfs.ReadWrite != 0}, nil
}

// Mkdir is part of vfs.FS.
func (m *FS) Mkdir(name string, _ fs.FileMode) error {
	if err := valid("mkdir", name); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	dir, node, base := m.find(name)
	switch {
	case node != nil && node.dir:
		return nil
	case node != nil:
		return pathError("mkdir", name, fs.ErrExist)
	case dir == nil:
		return pathError("mkdir", name, fs.ErrNotExist)
	}
	dir.entries[base] = newDir(m.now())
	return nil
}

// Rename is part of vfs.FS.
func (m *FS) Rename(oldName, newName string) error {
	if err := cmp.Or(valid("rename", oldName), valid("rename", newName)); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	oldDir, node, oldBase := m.find(oldName)
	newDir, target, newBase := m.find(newName)
	if node == nil || oldDir == nil || newDir == nil {
		return pathError("rename", oldName, fs.ErrNotExist)
	}
	if target != nil && target.dir != node.dir {
		return pathError("rename", newName, fs.ErrExist)
	}
	delete(oldDir.entries, oldBase)
	newDir.entries[newBase] = node
	return nil
}

// Remove is part of vfs.FS. Who has the file open goes on with it.
func (m *FS) Remove(name string) error {
	if err := valid("remove", name); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	dir, node, base := m.find(name)
	switch {
	case node == nil:
		return pathError("remove", name, fs.ErrNotExist)
	case dir == nil:
		return pathError("remove", name, fs.ErrInvalid)
	case len(node.entries) > 0:
		return pathError("remove", name, syscall.ENOTEMPTY)
	}
	delete(dir.entries, base)
	return nil
}

// ReadDir is part of vfs.FS.
func (m *FS) ReadDir(name string) ([]fs.DirEntry, error) {
	if err := valid("readdir", name); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	_, node, _ := m.find(name)
	if node == nil || !node.dir {
		return nil, pathError("readdir", name, fs.ErrNotExist)
	}
	list := make([]fs.DirEntry, 0, len(node.entries))
	for _, base := range slices.Sorted(maps.Keys(node.entries)) {
		list = append(list, fs.FileInfoToDirEntry(node.entries[base].info(base)))
	}
	return list, nil
}

// Stat is part of vfs.FS.
func (m *FS) Stat(name string) (fs.FileInfo, error) {
	if err := valid("stat", name); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	_, node, base := m.find(name)
	if node == nil {
		return nil, pathError("stat", name, fs.ErrNotExist)
	}
	return node.info(base), nil
}

// SyncDir is part of vfs.FS.
func (m *FS) SyncDir(name string) error {
	if err := valid("syncdir", name); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	_, node, _ := m.find(name)
	if node == nil || !node.dir {
		return pathError("syncdir", name, fs.ErrNotExist)
	}
	node.syncedEntries = maps.Clone(node.entries)
	return nil
}

// Space is part of vfs.FS.
func (m *FS) Space() (total, free int64, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.total, m.free, nil
}

// LinkFrom is part of vfs.Linker; the source must be of this file system.
func (m *FS) LinkFrom(src vfs.File, newName string) error {
	if err := valid("link", newName); err != nil {
		return err
	}
	f, ok := src.(*file)
	if !ok || f.fs != m {
		return pathError("link", newName, syscall.EXDEV)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	dir, node, base := m.find(newName)
	switch {
	case node != nil:
		return pathError("link", newName, fs.ErrExist)
	case dir == nil:
		return pathError("link", newName, fs.ErrNotExist)
	}
	dir.entries[base] = f.node
	return nil
}
