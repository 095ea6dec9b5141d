package migrate_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"gantry/meta"
	"gantry/migrate"
	"gantry/upload"
)

// TestModel lets runs go on call by call, two at a time and in both directions, is killed or sleeps past its lease,
// while files are uploaded, deleted, uploaded instantly and transferred, the doctor sends blobs back to staging,
// and the janitor cleans and sweeps. After every step each file has its bytes; in the end all is in one store and
// nothing lies around.
func TestModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "")
		if err != nil {
			rt.Fatal(err)
		}
		m := &model{world: newWorldIn(rt, dir), files: map[string][]byte{}}
		defer func() {
			m.killAll()
			m.close()
			_ = os.RemoveAll(dir)
		}()
		rt.Repeat(map[string]func(*rapid.T){
			"upload":   m.upload,
			"instant":  m.instant,
			"delete":   m.remove,
			"transfer": func(*rapid.T) { m.transfer() },
			"unstore":  m.unstore,
			"janitor":  func(*rapid.T) { m.must(m.Clean(rt.Context())) },
			"sweep":    func(*rapid.T) { m.must(m.Sweep(rt.Context())) },
			"time":     m.time,
			"start":    m.start,
			"step":     m.step,
			"step 2":   m.step,
			"step 3":   m.step,
			"step 4":   m.step,
			"kill":     m.kill,
			"":         m.check,
		})
		m.end()
	})
}

type model struct {
	*world
	files map[string][]byte
	order []string // of the files, in which they were made: ids are random
	runs  []*stepped
	made  int // runs
}

// stepped is a run that waits before its next call.
type stepped struct {
	ask   chan string
	reply chan error
	dead  chan struct{} // closed: it was killed
	ended chan error
	next  string
}

func (r *stepped) gate(_ context.Context, call string) error {
	select {
	case <-r.dead:
		return errKilled
	case r.ask <- call:
	}
	return <-r.reply
}

// wait waits until the run is before its next call; false if it has ended.
func (r *stepped) wait() (error, bool) {
	select {
	case r.next = <-r.ask:
		return nil, true
	case err := <-r.ended:
		return err, false
	}
}

// modelLease is the lease of the runs in the model, by its clock.
const modelLease = 10 * time.Minute

func (m *model) start(t *rapid.T) {
	if len(m.runs) == 2 {
		t.Skip("enough")
	}
	m.clock.advance(modelLease + time.Second) // what runs now has slept through its lease
	opt := options()
	opt.LeaseTTL = modelLease
	if rapid.IntRange(0, 3).Draw(t, "back") == 0 {
		opt.From, opt.To = "b", "a"
	}
	m.made++
	opt.Owner = fmt.Sprint("run ", m.made)
	r := &stepped{ask: make(chan string), reply: make(chan error), dead: make(chan struct{}), ended: make(chan error, 1)}
	mg := m.migrator(opt, m.behind(r.gate))
	ctx := context.WithoutCancel(t.Context())
	go func() {
		_, err := mg.Run(ctx)
		r.ended <- err
	}()
	m.runs = append(m.runs, r)
	m.look(len(m.runs) - 1)
	for r.next != "AcquireLease, done" { // or it would wait, by its own clock, for a lease that another gets first
		r.reply <- nil
		m.look(len(m.runs) - 1)
	}
}

// look waits for a run's next call, or takes it off the list.
func (m *model) look(i int) {
	err, going := m.runs[i].wait()
	if going {
		return
	}
	m.runs = slices.Delete(m.runs, i, i+1)
	if err != nil && !errors.Is(err, upload.Conflict) {
		m.t.Fatalf("a run ended: %v", err)
	}
}

func (m *model) step(t *rapid.T) {
	if len(m.runs) == 0 {
		t.Skip("none runs")
	}
	i := rapid.IntRange(0, len(m.runs)-1).Draw(t, "run")
	r := m.runs[i]
	for range rapid.IntRange(1, 8).Draw(t, "calls") {
		r.reply <- nil
		m.look(i)
		if !slices.Contains(m.runs, r) {
			return
		}
	}
}

func (m *model) kill(t *rapid.T) {
	if len(m.runs) == 0 {
		t.Skip("none runs")
	}
	m.killRun(rapid.IntRange(0, len(m.runs)-1).Draw(t, "run"))
}

func (m *model) killRun(i int) {
	r := m.runs[i]
	close(r.dead)
	r.reply <- errKilled
	<-r.ended
	m.runs = slices.Delete(m.runs, i, i+1)
}

func (m *model) killAll() {
	for len(m.runs) > 0 {
		m.killRun(0)
	}
}

func content(n int) []byte { return random(uint64(n), []int{0, 100, 5000, 70_000}[n]) }

func (m *model) took(id string, data []byte) {
	m.files[id] = data
	m.order = append(m.order, id)
}

func (m *model) upload(t *rapid.T) {
	data := content(rapid.IntRange(0, 3).Draw(t, "content"))
	m.took(m.put(data).ID, data)
}

func (m *model) instant(t *rapid.T) {
	data := content(rapid.IntRange(0, 3).Draw(t, "content"))
	b, err := m.db.FindContent(t.Context(), meta.ScopeGlobal, owner, upload.SumSHA1(data), int64(len(data)))
	if errors.Is(err, upload.NotFound) {
		t.Skip("not there")
	}
	m.must(err)
	m.clock.advance(time.Millisecond)
	now := m.clock.now()
	f := upload.File{ID: upload.NewID(now), Owner: owner, Name: "a", CreatedAt: now}
	_, err = m.db.CommitInstant(t.Context(), meta.Commit{UploadID: upload.NewUploadID("n1"), File: f}, b.ID)
	m.must(err)
	m.took(f.ID, data)
}

func (m *model) pick(t *rapid.T) string {
	if len(m.order) == 0 {
		t.Skip("no files")
	}
	return m.order[rapid.IntRange(0, len(m.order)-1).Draw(t, "file")]
}

func (m *model) remove(t *rapid.T) { m.drop(m.pick(t)) }

func (m *model) drop(id string) {
	m.must(m.DeleteFile(m.t.Context(), owner, id))
	delete(m.files, id)
	m.order = slices.DeleteFunc(m.order, func(other string) bool { return other == id })
}

// unstore sends a blob back to staging, if that has it, as the doctor does when the store has lost it.
func (m *model) unstore(t *rapid.T) {
	b := m.blob(m.pick(t))
	if err := m.db.Unstore(t.Context(), b.ID, "404", m.clock.now()); err != nil && !errors.Is(err, upload.Conflict) {
		t.Fatal(err)
	}
}

func (m *model) time(t *rapid.T) {
	m.clock.advance(rapid.SampledFrom([]time.Duration{time.Second, 11 * time.Minute, grace + time.Second, 3 * time.Hour}).Draw(t, "passes"))
}

func (m *model) check(t *rapid.T) {
	m.readable(m.files)
	wrong, err := m.db.WrongRefs(t.Context())
	m.must(err)
	if len(wrong) > 0 {
		t.Fatalf("wrong references: %v", wrong)
	}
	for _, f := range m.world.check(migrate.CheckOptions{Deep: true}) {
		if !strings.Contains(f.Problem, "No blob refers") { // what a killed run has put, and the sweep deletes
			t.Fatalf("check: %+v", f)
		}
	}
}

func (m *model) end() {
	m.killAll()
	m.transfer()
	m.clock.advance(24 * time.Hour)
	m.must(m.Clean(m.t.Context()))
	r := m.migrate()
	if r.Failed > 0 || r.Left.From.Live > 0 {
		m.t.Fatalf("the last run: %+v", r)
	}
	for range 2 {
		m.clock.advance(24 * time.Hour)
		m.must(errors.Join(m.Clean(m.t.Context()), m.Sweep(m.t.Context())))
	}
	m.readable(m.files)
	blobs := map[string]bool{}
	for id := range m.files {
		blobs[m.blob(id).ID] = true
	}
	if a, b := m.keys(m.a), m.keys(m.b); len(a) > 0 || len(b) != len(blobs) || len(m.moves()) > 0 {
		m.t.Fatalf("in a: %v, in b: %v, blobs %v, moves %+v", a, b, blobs, m.moves())
	}
	for _, id := range slices.Collect(maps.Keys(m.files)) {
		m.drop(id)
	}
	m.clock.advance(24 * time.Hour)
	m.must(m.Clean(m.t.Context()))
	if b := m.keys(m.b); len(b) > 0 {
		m.t.Fatalf("in b: %v", b)
	}
}
