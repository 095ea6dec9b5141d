package vfs_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"gantry/internal/vfs"
	"gantry/internal/vfs/memfs"
)

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func openOS(t *testing.T, dir string) *vfs.OS {
	t.Helper()
	o, err := vfs.OpenOS(dir)
	ok(t, err)
	t.Cleanup(func() { ok(t, o.Close()) })
	return o
}

func create(t *testing.T, fsys vfs.FS, name, content string) vfs.File {
	t.Helper()
	f, err := fsys.OpenFile(name, vfs.Create|vfs.Excl|vfs.ReadWrite, 0o600)
	ok(t, err)
	_, err = f.WriteAt([]byte(content), 0)
	ok(t, err)
	return f
}

func read(t *testing.T, fsys vfs.FS, name string) string {
	t.Helper()
	f, err := fsys.OpenFile(name, vfs.ReadOnly, 0)
	ok(t, err)
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	ok(t, err)
	p := make([]byte, info.Size())
	_, err = f.ReadAt(p, 0)
	if info.Size() > 0 {
		ok(t, err)
	}
	return string(p)
}

// Both file systems keep the same contract.
func TestFS(t *testing.T) {
	t.Parallel()
	for name, fresh := range map[string]func(t *testing.T) vfs.FS{
		"os":    func(t *testing.T) vfs.FS { t.Helper(); return openOS(t, t.TempDir()) },
		"memfs": func(*testing.T) vfs.FS { return memfs.New(nil) },
	} {
		t.Run(name, func(t *testing.T) { t.Parallel(); testFS(t, fresh(t)) })
	}
}

func testFS(t *testing.T, fsys vfs.FS) {
	t.Helper()
	_, err := fsys.OpenFile("a", vfs.ReadOnly, 0)
	wantErr(t, err, fs.ErrNotExist)
	f := create(t, fsys, "a", "hello")
	_, err = fsys.OpenFile("a", vfs.Create|vfs.Excl|vfs.ReadWrite, 0o600)
	wantErr(t, err, fs.ErrExist)
	_, err = f.WriteAt([]byte("X"), 7)
	ok(t, err)
	f.Flush(0, 8)
	ok(t, f.Sync())
	ok(t, fsys.SyncDir("."))
	if got := read(t, fsys, "a"); got != "hello\x00\x00X" {
		t.Errorf("got %q", got)
	}
	ok(t, f.Truncate(2))
	ok(t, f.Truncate(4))
	if got := read(t, fsys, "a"); got != "he\x00\x00" {
		t.Errorf("got %q", got)
	}
	ok(t, fsys.Mkdir("d", 0o700))
	ok(t, fsys.Mkdir("d", 0o700))
	if fsys.Mkdir("a", 0o700) == nil {
		t.Error("a directory in the place of a file")
	}
	ok(t, create(t, fsys, "d/b", "b").Close())
	if fsys.Remove("d") == nil {
		t.Error("a directory that is not empty was removed")
	}
	ok(t, fsys.Rename("a", "d/a"))
	wantErr(t, fsys.Rename("a", "d/a"), fs.ErrNotExist)
	ok(t, fsys.SyncDir("d"))
	wantErr(t, fsys.SyncDir("e"), fs.ErrNotExist)
	entries, err := fsys.ReadDir("d")
	ok(t, err)
	if len(entries) != 2 || entries[0].Name() != "a" || entries[1].Name() != "b" {
		t.Errorf("entries %v", entries)
	}
	ok(t, fsys.Rename("d/b", "d/a")) // replaces
	if got := read(t, fsys, "d/a"); got != "b" {
		t.Errorf("got %q", got)
	}
	p := make([]byte, 2)
	if _, err := f.ReadAt(p, 0); err != nil || !bytes.Equal(p, []byte("he")) {
		t.Errorf("an open file was lost with its name: %q, %v", p, err)
	}
	info, err := fsys.Stat("d")
	ok(t, err)
	if !info.IsDir() {
		t.Error("d is no directory")
	}
	g, err := fsys.OpenFile("d/a", vfs.ReadOnly, 0)
	ok(t, err)
	if _, err := g.WriteAt([]byte("x"), 0); err == nil {
		t.Error("a file opened for reading was written")
	}
	ok(t, fsys.(vfs.Linker).LinkFrom(g, "d/link"))
	if fsys.(vfs.Linker).LinkFrom(g, "d/link") == nil {
		t.Error("a link replaced a file")
	}
	ok(t, fsys.(vfs.Linker).LinkFrom(g, "link"))
	ok(t, g.Close())
	ok(t, fsys.Remove("d/a"))
	wantErr(t, fsys.Remove("d/a"), fs.ErrNotExist)
	if read(t, fsys, "link")+read(t, fsys, "d/link") != "bb" {
		t.Error("a link has other content")
	}
	total, free, err := fsys.Space()
	if err != nil || total <= 0 || free <= 0 || free > total {
		t.Errorf("space %d of %d, %v", free, total, err)
	}
	for _, name := range []string{"../x", "/etc/passwd", "d/../../x"} {
		if f, err := fsys.OpenFile(name, vfs.Create|vfs.ReadWrite, 0o600); err == nil {
			t.Errorf("%s was opened", name)
			_ = f.Close()
		}
	}
	ok(t, f.Close())
	if f.Close() == nil {
		t.Error("closed twice")
	}
}

func wantErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got %v, want %v", err, want)
	}
}

func TestOSOpensRegularFilesOnly(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	o := openOS(t, dir)
	ok(t, create(t, o, "target", "secret").Close())
	ok(t, os.Symlink("target", filepath.Join(dir, "link")))
	ok(t, os.Symlink("/etc", filepath.Join(dir, "out")))
	for _, name := range []string{"link", "out", "out/passwd", "."} {
		for _, flag := range []int{vfs.ReadOnly, vfs.Create | vfs.ReadWrite} {
			if f, err := o.OpenFile(name, flag, 0o600); err == nil {
				t.Errorf("%s was opened", name)
				_ = f.Close()
			}
		}
	}
	info, err := o.Stat("link")
	ok(t, err)
	if info.Mode().IsRegular() {
		t.Error("Stat follows links")
	}
	ok(t, o.Remove("link"))
	if got := read(t, o, "target"); got != "secret" {
		t.Errorf("removing a link changed its target: %q", got)
	}
}

func TestLinkFromAnotherTree(t *testing.T) {
	t.Parallel()
	parent := t.TempDir()
	ok(t, os.Mkdir(filepath.Join(parent, "a"), 0o700))
	ok(t, os.Mkdir(filepath.Join(parent, "b"), 0o700))
	a, b := openOS(t, filepath.Join(parent, "a")), openOS(t, filepath.Join(parent, "b"))
	f := create(t, a, "f", "content")
	ok(t, b.Mkdir("sub", 0o700))
	ok(t, b.LinkFrom(f, "sub/g"))
	ok(t, f.Close())
	ok(t, a.Remove("f"))
	if got := read(t, b, "sub/g"); got != "content" {
		t.Errorf("got %q", got)
	}
	f = create(t, memfs.New(nil), "f", "x")
	if b.LinkFrom(f, "h") == nil {
		t.Error("a file in memory was linked")
	}
}

func TestLockDir(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first, err := vfs.LockDir(dir, "lock")
	ok(t, err)
	_, err = vfs.LockDir(dir, "lock")
	if err == nil {
		t.Fatal("locked twice")
	}
	for _, part := range []string{dir, strconv.Itoa(os.Getpid()), "in use"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the error does not say %q: %v", part, err)
		}
	}
	other, err := vfs.LockDir(dir, "lock.other")
	ok(t, err)
	ok(t, other.Close())
	ok(t, first.Close())
	second, err := vfs.LockDir(dir, "lock")
	ok(t, err)
	ok(t, second.Close())
	if _, err := vfs.LockDir(filepath.Join(dir, "none"), "lock"); err == nil {
		t.Error("a directory that is not there was locked")
	}
	entries, err := os.ReadDir(dir)
	ok(t, err)
	if !slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() == "lock" }) {
		t.Error("the lock file is not named as documented")
	}
}
