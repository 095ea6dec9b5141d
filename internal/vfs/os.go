package vfs

import (
	"fmt"
	"io/fs"
	"math"
	"os"
	"path"
)

// OS is a directory of the real file system. It never leaves that directory (os.Root), opens regular
// files only, and does not follow symbolic links at the end of a name.
type OS struct {
	root *os.Root
	top  *os.File // the directory itself, for SyncDir(".") and Space
}

// OpenOS opens an existing directory.
func OpenOS(dir string) (*OS, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	top, err := root.Open(".")
	if err != nil {
		_ = root.Close()
		return nil, err
	}
	return &OS{root: root, top: top}, nil
}

// Close lets go of the directory. Files opened through it stay usable.
func (o *OS) Close() error {
	err := o.top.Close()
	if rootErr := o.root.Close(); err == nil {
		err = rootErr
	}
	return err
}

// OpenFile is part of FS.
func (o *OS) OpenFile(name string, flag int, perm fs.FileMode) (File, error) {
	if flag&(Create|Excl) != Create|Excl { // an exclusive create never follows anything
		info, err := o.root.Lstat(name)
		if err == nil && !info.Mode().IsRegular() {
			return nil, &fs.PathError{Op: "open", Path: name, Err: fmt.Errorf("not a regular file: %w", fs.ErrInvalid)}
		}
	}
	f, err := o.root.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return &osFile{f}, nil
}

// Mkdir is part of FS.
func (o *OS) Mkdir(name string, perm fs.FileMode) error {
	err := o.root.Mkdir(name, perm)
	if err != nil {
		if info, statErr := o.root.Lstat(name); statErr == nil && info.IsDir() {
			return nil
		}
	}
	return err
}

// Rename is part of FS.
func (o *OS) Rename(oldName, newName string) error { return o.root.Rename(oldName, newName) }

// Remove is part of FS.
func (o *OS) Remove(name string) error { return o.root.Remove(name) }

// ReadDir is part of FS.
func (o *OS) ReadDir(name string) ([]fs.DirEntry, error) {
	return fs.ReadDir(o.root.FS(), name)
}

// Stat is part of FS.
func (o *OS) Stat(name string) (fs.FileInfo, error) { return o.root.Lstat(name) }

// SyncDir is part of FS.
func (o *OS) SyncDir(name string) error {
	if path.Clean(name) == "." {
		return o.top.Sync()
	}
	d, err := o.root.Open(name)
	if err != nil {
		return err
	}
	err = d.Sync()
	if closeErr := d.Close(); err == nil {
		err = closeErr
	}
	return err
}

// Space is part of FS. On systems that cannot tell, it is endless.
func (o *OS) Space() (total, free int64, err error) { return space(o.top) }

// clampSpace multiplies blocks of a size without overflow.
func clampSpace(blocks, size uint64) int64 {
	if size != 0 && blocks > math.MaxInt64/size {
		return math.MaxInt64
	}
	return int64(blocks * size)
}

// LinkFrom is part of Linker.
func (o *OS) LinkFrom(src File, newName string) error {
	f, ok := src.(*osFile)
	if !ok {
		return &fs.PathError{Op: "link", Path: newName, Err: fmt.Errorf("the source is not a file of this system: %w", fs.ErrInvalid)}
	}
	dir := o.top
	if parent := path.Dir(newName); parent != "." {
		d, err := o.root.Open(parent)
		if err != nil {
			return err
		}
		defer func() { _ = d.Close() }()
		dir = d
	}
	if err := linkFile(f.File, dir, path.Base(newName)); err != nil {
		return &fs.PathError{Op: "link", Path: newName, Err: err}
	}
	return nil
}

type osFile struct{ *os.File }

func (f *osFile) Sync() error        { return syncData(f.File) }
func (f *osFile) Flush(off, n int64) { flushRange(f.File, off, n) }
