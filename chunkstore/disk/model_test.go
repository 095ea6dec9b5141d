package disk_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"

	"gantry/chunkstore/chunkstoretest"
	"gantry/chunkstore/disk"
	"gantry/internal/vfs/faultfs"
	"gantry/internal/vfs/memfs"
	"gantry/upload"
)

// modelChunk is odd, so that chunks share disk sectors.
const modelChunk = 700

// A modelled chunk is absent (none), or there with one of two contents. After an error it is as it
// was before; whatever was acknowledged stays, but for what the durability allows to get lost.
const none = -1

type modelUpload struct {
	spec     upload.Spec
	variants [2][]byte
	size     int64
	chunks   []int
	sealed   bool
	ended    bool // committed (if sealed) or discarded
}

func (m *modelUpload) part(variant, i int) []byte {
	return chunkstoretest.Chunk(m.variants[variant], modelChunk, i)
}

func (m *modelUpload) content() []byte {
	var b []byte
	for i, variant := range m.chunks {
		b = append(b, m.part(variant, i)...)
	}
	return b
}

// machine runs a Staging and a model of it side by side.
type machine struct {
	opt    disk.Options
	boot   int
	mem    *memfs.FS
	faults *faultfs.FS
	s      *disk.Staging
	ups    []*modelUpload
	wholes map[string][]byte
}

func (m *machine) ctx() context.Context { return context.Background() }

func (m *machine) open(t *rapid.T, mem *memfs.FS) {
	m.mem, m.faults = mem, faultfs.New(mem, nil)
	m.opt.BootID = fmt.Sprint("boot ", m.boot)
	s, err := disk.Open(m.faults, m.opt)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	m.s = s
}

func (m *machine) pick(t *rapid.T) *modelUpload {
	var open []*modelUpload
	for _, u := range m.ups {
		if !u.ended {
			open = append(open, u)
		}
	}
	if len(open) == 0 {
		t.Skip("no upload is open")
	}
	return rapid.SampledFrom(open).Draw(t, "upload")
}

// after puts the model right after a call that failed. A broken node is restarted.
func (m *machine) after(t *rapid.T, err error) {
	if err == nil {
		return
	}
	switch upload.KindOf(err) {
	case upload.Unavailable, upload.NoRoom, upload.Incomplete:
	default:
		t.Fatalf("unexpected: %v", err)
	}
	m.faults.SetHook(nil)
	if !m.s.Health().Writable {
		m.kill(t)
	}
}

func (m *machine) create(t *rapid.T) {
	if len(m.ups) > 12 {
		t.Skip("enough")
	}
	size := rapid.Int64Range(0, 5*modelChunk).Draw(t, "size")
	u := &modelUpload{spec: chunkstoretest.NewSpec(size, modelChunk), size: size}
	if rapid.IntRange(0, 3).Draw(t, "unknown") == 0 {
		u.spec.Size = upload.UnknownSize
	}
	seed := rapid.Byte().Draw(t, "seed")
	u.variants = [2][]byte{chunkstoretest.Bytes(size, seed), chunkstoretest.Bytes(size, seed+1)}
	for range (upload.Layout{Size: size, ChunkSize: modelChunk}).Count() {
		u.chunks = append(u.chunks, none)
	}
	err := m.s.Create(m.ctx(), u.spec)
	if err == nil {
		m.ups = append(m.ups, u)
	} else if _, getErr := m.s.Get(u.spec.ID); !errors.Is(getErr, upload.NotFound) {
		t.Fatalf("Create failed (%v), but the upload is there (%v)", err, getErr)
	}
	m.after(t, err)
}

func (m *machine) write(t *rapid.T) {
	u := m.pick(t)
	if len(u.chunks) == 0 {
		t.Skip("no chunks")
	}
	i := rapid.IntRange(0, len(u.chunks)-1).Draw(t, "chunk")
	variant := rapid.IntRange(0, 1).Draw(t, "variant")
	before := m.received(t, u)
	err := m.s.WriteChunk(m.ctx(), u.spec.ID, i, chunkstoretest.BodyOf(u.part(variant, i)))
	switch {
	case u.sealed && (err == nil || !errors.Is(err, upload.NotOpen) && !errors.Is(err, upload.Unavailable)):
		t.Fatalf("a sealed upload took a chunk: %v", err)
	case u.sealed:
		err = nil
	case err == nil && u.chunks[i] != none && u.chunks[i] != variant && !bytes.Equal(u.part(0, i), u.part(1, i)):
		t.Fatalf("acknowledged chunk %d was overwritten", i)
	case err == nil && u.chunks[i] == none:
		u.chunks[i] = variant
	case errors.Is(err, upload.ChunkConflict):
		if u.chunks[i] == none || u.chunks[i] == variant {
			t.Fatalf("chunk %d: %v", i, err)
		}
		err = nil
	case err != nil:
		if now := m.received(t, u); m.s.Health().Writable && m.opt.Durability == disk.DurableComplete && now[i] != before[i] {
			t.Fatalf("chunk %d failed (%v) and changed", i, err)
		}
		m.after(t, err)
		m.reread(t, u, false)
	}
	m.after(t, err)
}

func (m *machine) received(t *rapid.T, u *modelUpload) []bool {
	got, err := m.s.Get(u.spec.ID)
	if err != nil {
		t.Fatalf("get: %v", err)
	}
	there := make([]bool, len(u.chunks))
	for i := range there {
		there[i] = got.Received.Has(i)
	}
	return there
}

// reread takes over what the Staging reports after an event that may lose chunks (lossy) or leave
// some that were not acknowledged. What is reported must have right bytes.
func (m *machine) reread(t *rapid.T, u *modelUpload, lossy bool) {
	if u.ended {
		return
	}
	got, err := m.s.Get(u.spec.ID)
	if err != nil {
		t.Fatalf("an acknowledged upload is gone: %v", err)
	}
	if u.sealed && !got.Sealed {
		t.Fatalf("a sealed upload is open again, missing %v", got.Missing())
	}
	if got.Sealed {
		// Sealed though complete failed, or before: all is there.
		u.sealed = true
	}
	for i, was := range u.chunks {
		switch {
		case !got.Received.Has(i):
			if was != none && !lossy {
				t.Fatalf("acknowledged chunk %d is gone", i)
			}
			u.chunks[i] = none
		case was == none:
			u.chunks[i] = m.variantOf(t, u, i)
		}
	}
	// Sending it again tells whether the bytes are right.
	for i, variant := range u.chunks {
		if variant == none || u.sealed {
			continue
		}
		if err := m.s.WriteChunk(m.ctx(), u.spec.ID, i, chunkstoretest.BodyOf(u.part(variant, i))); err != nil {
			if !m.s.Health().Writable {
				return
			}
			t.Fatalf("chunk %d is reported there, but sending its bytes again: %v", i, err)
		}
	}
}

func (m *machine) variantOf(t *rapid.T, u *modelUpload, i int) int {
	off := int64(i) * modelChunk
	f, err := m.mem.OpenFile(u.spec.ID+".data", 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	p := make([]byte, len(u.part(0, i)))
	_, _ = f.ReadAt(p, off)
	_ = f.Close()
	for variant := range 2 {
		if bytes.Equal(p, u.part(variant, i)) {
			return variant
		}
	}
	t.Fatalf("chunk %d is reported there with bytes that nobody sent", i)
	return none
}

func (m *machine) seal(t *rapid.T) {
	u := m.pick(t)
	complete := true
	for _, variant := range u.chunks {
		complete = complete && variant != none
	}
	sealed, err := m.s.Seal(m.ctx(), u.spec.ID, u.size)
	switch {
	case err == nil && !complete:
		t.Fatal("sealed with chunks missing")
	case err == nil:
		if sealed != chunkstoretest.SealedOf(u.content()) {
			t.Fatalf("sealed %+v, want %+v", sealed, chunkstoretest.SealedOf(u.content()))
		}
		u.sealed = true
	case complete && errors.Is(err, upload.Incomplete):
		t.Fatalf("acknowledged chunks are missing: %v", err)
	case !complete && errors.Is(err, upload.Incomplete):
		return
	default:
		m.after(t, err)
		m.reread(t, u, true) // a failed sync drops what was not synced
	}
}

func (m *machine) end(t *rapid.T) {
	u := m.pick(t)
	var err error
	if u.sealed && rapid.Bool().Draw(t, "commit") {
		err = m.s.Commit(m.ctx(), u.spec.ID)
	} else {
		u.sealed = false
		err = m.s.Discard(m.ctx(), u.spec.ID)
	}
	u.ended = true
	if err != nil {
		m.after(t, err)
		m.settleEnded(t)
	}
}

// settleEnded does what the use cases do at start with uploads that have ended.
func (m *machine) settleEnded(t *rapid.T) {
	for _, u := range m.ups {
		if !u.ended {
			continue
		}
		var err error
		if u.sealed {
			err = m.s.Commit(m.ctx(), u.spec.ID)
		} else {
			err = m.s.Discard(m.ctx(), u.spec.ID)
		}
		if err != nil {
			t.Fatalf("an ended upload cannot be put away: %v", err)
		}
	}
}

func (m *machine) whole(t *rapid.T) {
	content := chunkstoretest.Bytes(rapid.Int64Range(0, 3000).Draw(t, "size"), rapid.Byte().Draw(t, "seed"))
	id := upload.NewUploadID("n0de")
	sealed, err := m.s.WriteWhole(m.ctx(), id, chunkstoretest.BodyOf(content), 1<<20)
	if err == nil {
		if sealed != chunkstoretest.SealedOf(content) {
			t.Fatalf("sealed %+v", sealed)
		}
		m.wholes[id] = content
	}
	m.after(t, err)
}

func (m *machine) fault(t *rapid.T) {
	kind := rapid.SampledFrom([]faultfs.Kind{faultfs.Write, faultfs.Sync, faultfs.SyncDir, faultfs.Open, faultfs.Truncate, faultfs.Remove}).Draw(t, "kind")
	suffix := rapid.SampledFrom([]string{".data", ".journal", ".manifest", ""}).Draw(t, "suffix")
	var err error = rapid.SampledFrom([]syscall.Errno{syscall.EIO, syscall.ENOSPC}).Draw(t, "errno")
	if kind == faultfs.Write {
		err = &faultfs.ShortWrite{Bytes: rapid.IntRange(0, 200).Draw(t, "short"), Err: err}
	}
	m.faults.SetHook(faultfs.FailNth(rapid.IntRange(1, 3).Draw(t, "nth"), err, func(op faultfs.Op) bool {
		return op.Kind == kind && strings.HasSuffix(op.Name, suffix)
	}))
}

func (m *machine) kill(t *rapid.T) {
	left := m.mem.Kill()
	m.faults.SetHook(nil)
	_ = m.s.Close() // the goroutines of the old one end; its file system is not looked at again
	m.open(t, left)
	m.settleEnded(t)
	for _, u := range m.ups {
		m.reread(t, u, false)
	}
}

func (m *machine) restart(t *rapid.T) {
	m.faults.SetHook(nil)
	err := m.s.Close()
	if err != nil && m.s.Health().Reason == "" {
		t.Fatalf("close: %v", err)
	}
	if rapid.Bool().Draw(t, "reboot") && err == nil {
		m.boot++
	}
	m.open(t, m.mem)
	m.settleEnded(t)
	for _, u := range m.ups {
		m.reread(t, u, false)
	}
}

func (m *machine) powerCut(t *rapid.T) {
	left := m.mem.Crash(rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "crash"), 1)))
	m.faults.SetHook(nil)
	_ = m.s.Close()
	m.boot++
	m.open(t, left)
	m.settleEnded(t)
	for _, u := range m.ups {
		m.reread(t, u, m.opt.Durability == disk.DurableComplete)
	}
}

// check holds for all times: nothing acknowledged is missing, no other byte comes back.
func (m *machine) check(t *rapid.T) {
	for _, u := range m.ups {
		switch {
		case u.ended && u.sealed:
			m.compare(t, u.spec.ID, u.content())
		case u.ended:
			if _, err := m.s.Get(u.spec.ID); !errors.Is(err, upload.NotFound) {
				t.Fatalf("a discarded upload is there: %v", err)
			}
		default:
			for i, there := range m.received(t, u) {
				if there != (u.chunks[i] != none) {
					t.Fatalf("chunk %d is there: %v, in the model: %d", i, there, u.chunks[i])
				}
			}
			if u.sealed {
				m.compare(t, u.spec.ID, u.content())
			}
		}
	}
	for id, content := range m.wholes {
		m.compare(t, id, content)
	}
}

func (m *machine) compare(t *rapid.T, id string, content []byte) {
	c, err := m.s.Open(m.ctx(), id)
	for i := 0; err != nil && i < 3 && errors.Is(err, syscall.EIO) || errors.Is(err, syscall.ENOSPC); i++ { // the fault hit us
		c, err = m.s.Open(m.ctx(), id)
	}
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	got := make([]byte, c.Size())
	_, _ = c.ReadAt(got, 0)
	_ = c.Close()
	if !bytes.Equal(got, content) {
		t.Fatalf("%s: %d other bytes come back, want %d", id, len(got), len(content))
	}
}

// Random lives of uploads with faults, kills and power cuts, compared with a model.
func TestModel(t *testing.T) {
	t.Parallel()
	for _, durability := range []disk.Durability{disk.DurableComplete, disk.DurableChunk} {
		t.Run(string(durability), func(t *testing.T) {
			t.Parallel()
			rapid.Check(t, func(t *rapid.T) {
				m := &machine{
					opt:    disk.Options{Durability: durability, StallAfter: time.Second, MaxIdle: 2},
					wholes: map[string][]byte{},
				}
				m.open(t, memfs.New(nil))
				defer func() { _ = m.s.Close() }()
				t.Repeat(map[string]func(*rapid.T){
					"create": m.create, "write": m.write, "write 2": m.write, "write 3": m.write, "write 4": m.write,
					"seal": m.seal, "seal 2": m.seal, "end": m.end, "whole": m.whole, "fault": m.fault,
					"kill": m.kill, "restart": m.restart, "power cut": m.powerCut,
					"": func(t *rapid.T) {
						if !m.s.Health().Writable { // the background hasher met the fault
							m.kill(t)
						}
						m.check(t)
					},
				})
			})
		})
	}
}
