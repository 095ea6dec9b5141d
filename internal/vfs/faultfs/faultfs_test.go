package faultfs_test

import (
	"errors"
	"io/fs"
	"slices"
	"syscall"
	"testing"

	"gantry/internal/vfs"
	"gantry/internal/vfs/faultfs"
	"gantry/internal/vfs/memfs"
)

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Every operation is seen, and fails when it is told to, without any effect.
func TestEveryOperation(t *testing.T) {
	t.Parallel()
	inner := memfs.New(nil)
	f := faultfs.New(inner, nil)
	open := func(name string) vfs.File {
		t.Helper()
		file, err := f.OpenFile(name, vfs.Create|vfs.ReadWrite, 0o600)
		ok(t, err)
		return file
	}
	file := open("a")
	p := make([]byte, 1)
	for _, op := range []struct {
		kind faultfs.Kind
		name string
		do   func() error
	}{
		{faultfs.Open, "b", func() error {
			b, err := f.OpenFile("b", vfs.Create, 0o600)
			if err == nil {
				err = b.Close()
			}
			return err
		}},
		{faultfs.Mkdir, "d", func() error { return f.Mkdir("d", 0o700) }},
		{faultfs.Write, "a", func() error { _, err := file.WriteAt([]byte("xyz"), 0); return err }},
		{faultfs.Read, "a", func() error { _, err := file.ReadAt(p, 0); return err }},
		{faultfs.Truncate, "a", func() error { return file.Truncate(2) }},
		{faultfs.Sync, "a", file.Sync},
		{faultfs.Stat, "a", func() error { _, err := file.Stat(); return err }},
		{faultfs.Stat, "a", func() error { _, err := f.Stat("a"); return err }},
		{faultfs.ReadDir, ".", func() error { _, err := f.ReadDir("."); return err }},
		{faultfs.SyncDir, ".", func() error { return f.SyncDir(".") }},
		{faultfs.Space, ".", func() error { _, _, err := f.Space(); return err }},
		{faultfs.Link, "l", func() error { return f.LinkFrom(file, "l") }},
		{faultfs.Rename, "e", func() error { return f.Rename("d", "e") }},
		{faultfs.Remove, "e", func() error { return f.Remove("e") }},
		{faultfs.Close, "a", func() error { return open("a").Close() }},
	} {
		before := entries(t, inner)
		f.SetHook(faultfs.FailNth(1, syscall.EIO, func(o faultfs.Op) bool { return o.Kind == op.kind && o.Name == op.name }))
		if err := op.do(); !errors.Is(err, syscall.EIO) {
			t.Errorf("%s: %v", op.kind, err)
		}
		if after := entries(t, inner); !slices.Equal(before, after) {
			t.Errorf("%s failed, but changed %v to %v", op.kind, before, after)
		}
		if err := op.do(); err != nil {
			t.Errorf("%s, the second time: %v", op.kind, err)
		}
	}
}

func entries(t *testing.T, inner vfs.FS) []string {
	t.Helper()
	list, err := inner.ReadDir(".")
	ok(t, err)
	var names []string
	for _, e := range list {
		names = append(names, fs.FormatDirEntry(e))
	}
	return names
}

func TestFailNth(t *testing.T) {
	t.Parallel()
	f := faultfs.New(memfs.New(nil), faultfs.FailNth(3, syscall.EIO, func(op faultfs.Op) bool { return op.Kind == faultfs.SyncDir }))
	var failed []int
	for i := range 6 {
		_, _ = f.Stat("x") // does not count
		if f.SyncDir(".") != nil {
			failed = append(failed, i)
		}
	}
	if !slices.Equal(failed, []int{2}) {
		t.Errorf("failed: %v", failed)
	}
}

func TestShortWrite(t *testing.T) {
	t.Parallel()
	inner := memfs.New(nil)
	f := faultfs.New(inner, nil)
	file, err := f.OpenFile("a", vfs.Create|vfs.ReadWrite, 0o600)
	ok(t, err)
	f.SetHook(faultfs.FailNth(1, &faultfs.ShortWrite{Bytes: 3, Err: syscall.ENOSPC}, func(op faultfs.Op) bool { return op.Kind == faultfs.Write }))
	n, err := file.WriteAt([]byte("abcdef"), 0)
	if n != 3 || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("%d, %v", n, err)
	}
	if info, err := inner.Stat("a"); err != nil || info.Size() != 3 {
		t.Errorf("%v, %v", info, err)
	}
}
