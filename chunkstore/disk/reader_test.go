package disk_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"gantry/chunkstore"
	"gantry/chunkstore/disk"
	"gantry/internal/vfs"
	"gantry/store"
	"gantry/upload"
)

// A Reader reads what a Staging has sealed, whole and as a file that can be linked, and leaves no trace.
func TestReader(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	open := func() *vfs.OS {
		tree, err := vfs.OpenOS(dir)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = tree.Close() })
		return tree
	}
	staging, err := disk.Open(open(), disk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer staging.Close()
	id, data := upload.NewUploadID("n1"), bytes.Repeat([]byte("gantry"), 10_000)
	if _, err := staging.WriteWhole(t.Context(), id, chunkstore.Body{Reader: bytes.NewReader(data), Length: int64(len(data))}, 1<<20); err != nil {
		t.Fatal(err)
	}
	list := func() (names []string) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			names = append(names, e.Name())
		}
		return names
	}
	before := list()
	boot, err := os.ReadFile(filepath.Join(dir, "boot"))
	if err != nil {
		t.Fatal(err)
	}

	reader := disk.NewReader(open())
	c, err := reader.Open(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, ok := c.(store.Filer); !ok {
		t.Error("a store on the same disk would have to copy it")
	}
	if err := staging.Discard(t.Context(), id); err != nil { // it stays readable
		t.Fatal(err)
	}
	got, err := io.ReadAll(io.NewSectionReader(c, 0, c.Size()))
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	for _, other := range []string{id, upload.NewUploadID("n1"), "../node", ""} {
		if _, err := reader.Open(t.Context(), other); !errors.Is(err, upload.NotFound) {
			t.Errorf("%q: %v", other, err)
		}
	}
	after := list()
	if i := slices.Index(before, id+".data"); i < 0 || !slices.Equal(slices.Delete(before, i, i+1), after) {
		t.Errorf("the directory had %q and has %q", before, after)
	}
	if now, err := os.ReadFile(filepath.Join(dir, "boot")); err != nil || !bytes.Equal(now, boot) {
		t.Errorf("the boot file was changed (%v)", err)
	}
}
