package disk

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"gantry/internal/vfs"
	"gantry/upload"
)

// The file "boot" tells whether the machine may have lost what was not synced. It has the machine's
// boot id, whether the directory was shut cleanly, and the generation: a random number that every
// journal record carries. It is drawn anew when the directory was left open in another boot of the
// machine, or when it cannot be told; records of earlier generations are then believed only once
// their chunks have been read. It is drawn anew, too, after a failed sync: see distrust.
const bootName = "boot"

// bootState is what the file says of the directory.
type bootState string

const (
	bootOpen   bootState = "open"
	bootClean  bootState = "clean"  // all is on stable storage
	bootFailed bootState = "failed" // a sync failed since the last clean stop
)

const (
	dataSuffix     = ".data"
	manifestSuffix = ".manifest"
	journalSuffix  = ".journal"
)

// boot sets the generation and records that the directory is in use. It reports whether all that is
// there is known to be on stable storage.
func (s *Staging) boot() (clean bool, err error) {
	text, err := s.readAll(bootName, 4096)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	generation, state, bootID, ok := parseBoot(text)
	switch {
	case ok && state == bootClean:
		s.generation, clean = generation, true
	case ok && state == bootOpen && bootID == s.opt.BootID && bootID != "":
		s.generation = generation
	default:
		var b [4]byte
		_, _ = rand.Read(b[:]) // never fails (crypto/rand, Go 1.24)
		s.generation = binary.BigEndian.Uint32(b[:])
		s.doubt = !ok || state == bootFailed
	}
	// A doubt stays until a clean stop, as this process may die before it has dealt with all uploads.
	if s.doubt {
		return false, s.writeBoot(bootFailed)
	}
	return clean, s.writeBoot(bootOpen)
}

func encodeBoot(generation uint32, state bootState, bootID string) []byte {
	line := fmt.Sprintf("%08x %s %q", generation, state, bootID)
	return fmt.Appendf(nil, "%s %08x\n", line, crc32.Checksum([]byte(line), upload.Castagnoli))
}

func parseBoot(text []byte) (generation uint32, state bootState, bootID string, ok bool) {
	if _, err := fmt.Sscanf(string(text), "%x %s %q", &generation, &state, &bootID); err != nil {
		return 0, "", "", false
	}
	return generation, state, bootID, slices.Equal(text, encodeBoot(generation, state, bootID))
}

// writeBoot makes the file durable. It is written in place: one that was torn reads as "unknown".
func (s *Staging) writeBoot(state bootState) error {
	f, err := s.fs.OpenFile(bootName, vfs.Create|vfs.Trunc|vfs.ReadWrite, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(encodeBoot(s.generation, state, s.opt.BootID), 0)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return s.fs.SyncDir(".")
}

// distrust makes the next start look at all chunks, however this process ends.
func (s *Staging) distrust() {
	if s.distrusted.Swap(true) {
		return
	}
	err := s.writeBoot(bootFailed)
	if err == nil {
		return
	}
	if err := errors.Join(err, s.remove(bootName), s.fs.SyncDir(".")); err != nil {
		s.opt.Log.Error("cannot change the boot marker; delete the file by hand before the next start", "name", bootName, "error", err)
	}
}

// load reads all manifests and journals.
func (s *Staging) load(clean bool) error {
	entries, err := s.fs.ReadDir(".")
	if err != nil {
		return err
	}
	found := map[string]map[string]bool{} // id → suffixes
	for _, entry := range entries {
		for _, suffix := range []string{dataSuffix, manifestSuffix, journalSuffix} {
			id, ok := strings.CutSuffix(entry.Name(), suffix)
			if _, isID := upload.ParseUploadID(id); !ok || !isID {
				continue
			}
			if found[id] == nil {
				found[id] = map[string]bool{}
			}
			found[id][suffix] = true
		}
	}
	var mu sync.Mutex
	var group errgroup.Group
	group.SetLimit(s.opt.HashWorkers)
	for id, files := range found {
		switch {
		case files[manifestSuffix]:
			group.Go(func() error {
				u, err := s.loadSession(id, files, clean)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err != nil:
					return fmt.Errorf("%s: %w", id, err)
				case u != nil:
					s.open[id] = u
				case files[dataSuffix] || files[journalSuffix]:
					s.damaged[id] = true
				}
				return nil
			})
		case files[journalSuffix]: // committed or discarded, but for this
			if err := s.remove(id + journalSuffix); err != nil {
				return errors.Join(err, group.Wait())
			}
		}
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for _, u := range s.open {
		s.space.reserve(u.promised)
	}
	return nil
}

// loadSession reads one upload; nil if its manifest is not readable.
func (s *Staging) loadSession(id string, files map[string]bool, clean bool) (*session, error) {
	text, err := s.readAll(id+manifestSuffix, maxManifest)
	if err != nil {
		return nil, err
	}
	spec, err := parseManifest(text, id)
	if err != nil {
		if files[dataSuffix] || files[journalSuffix] {
			s.opt.Log.Error("the manifest of an upload is damaged; its files are left alone", "upload_id", id, "error", err)
			return nil, nil
		}
		// Create did not get to its end, so nobody was told of this upload.
		return nil, s.remove(id + manifestSuffix)
	}
	u := newSession(spec)
	if !files[journalSuffix] {
		return u, nil
	}
	journal, err := s.readAll(id+journalSuffix, maxJournal)
	if err != nil {
		return nil, err
	}
	r := replayJournal(journal, &spec, s.generation)
	if r.damaged {
		s.opt.Log.Warn("the journal of an upload is damaged; its chunks will be read and those not right asked for again", "upload_id", id)
	}
	if !files[dataSuffix] && r.received.Len() > 0 {
		r.damaged = true // a discard that was cut short by a power cut, or somebody deleted it
	}
	u.restore(&r, clean)
	// What this process promises must not rest on what the one before left in the system's cache.
	u.pending = u.suspect || !clean && (s.doubt || u.sealed != nil || s.opt.Durability == DurableChunk)
	return u, nil
}

// maxJournal bounds what is read of a journal, bytes: many times what the most chunks make.
const maxJournal = 64 * upload.MaxChunks * recordSize

// readAll reads a small file, up to limit bytes of it.
func (s *Staging) readAll(name string, limit int64) ([]byte, error) {
	f, err := s.fs.OpenFile(name, vfs.ReadOnly, 0)
	if err != nil {
		return nil, err
	}
	text, err := readFile(f, limit)
	return text, errors.Join(err, f.Close())
}

func readFile(f vfs.File, limit int64) ([]byte, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	text := make([]byte, min(info.Size(), limit))
	n, err := f.ReadAt(text, 0)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return text[:n], err
}
