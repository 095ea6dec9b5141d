package disk_test

import (
	"testing"
	"time"

	"gantry/chunkstore"
	"gantry/chunkstore/chunkstoretest"
	"gantry/chunkstore/disk"
	"gantry/internal/vfs"
	"gantry/internal/vfs/memfs"
)

func openOn(t *testing.T, fsys vfs.FS, opt disk.Options) *disk.Staging {
	t.Helper()
	if opt.StallAfter == 0 {
		opt.StallAfter = 100 * time.Millisecond
	}
	if opt.BootID == "" {
		opt.BootID = "boot 1"
	}
	s, err := disk.Open(fsys, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() }) // a second Close does nothing
	return s
}

func newOS(t *testing.T, dir string) vfs.FS {
	t.Helper()
	fsys, err := vfs.OpenOS(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = fsys.Close() })
	return fsys
}

func TestContract(t *testing.T) {
	t.Parallel()
	for _, durability := range []disk.Durability{disk.DurableComplete, disk.DurableChunk} {
		for name, fresh := range map[string]func(t *testing.T) vfs.FS{
			"os":    func(t *testing.T) vfs.FS { t.Helper(); return newOS(t, t.TempDir()) },
			"memfs": func(*testing.T) vfs.FS { return memfs.New(nil) },
		} {
			t.Run(string(durability)+"/"+name, func(t *testing.T) {
				t.Parallel()
				chunkstoretest.RunStaging(t, func(t *testing.T) chunkstoretest.Opener {
					t.Helper()
					fsys := fresh(t)
					return func(t *testing.T) chunkstore.Staging {
						t.Helper()
						return openOn(t, fsys, disk.Options{Durability: durability})
					}
				})
			})
		}
	}
}

// The files of an upload are opened again when they were closed because others came.
func TestContractWithOneOpenFile(t *testing.T) {
	t.Parallel()
	chunkstoretest.RunStaging(t, func(t *testing.T) chunkstoretest.Opener {
		t.Helper()
		fsys := newOS(t, t.TempDir())
		return func(t *testing.T) chunkstore.Staging {
			t.Helper()
			return openOn(t, fsys, disk.Options{MaxIdle: 1, HashWorkers: 1})
		}
	})
}
