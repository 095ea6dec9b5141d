package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dustin/go-humanize"

	"gantry/client"
)

// tracker follows one file. Its numbers come from the client's events.
type tracker struct {
	name string
	size int64 // -1: unknown

	phase   atomic.Pointer[client.Phase]
	resumed atomic.Int64
	moved   atomic.Int64
	hashed  atomic.Int64
	instant atomic.Int64 // bytes that need not be sent
	highest atomic.Int64 // what was shown: progress never goes back

	speed meter
}

func (t *tracker) event(e client.Event) {
	switch e.Kind {
	case client.PhaseChanged:
		t.phase.Store(&e.Phase)
	case client.Resumed:
		t.resumed.Add(e.Bytes)
	case client.Moved:
		t.moved.Add(e.Bytes)
	case client.Hashed:
		t.hashed.Add(e.Bytes)
	case client.Instant:
		t.instant.Add(e.Bytes)
	case client.Acknowledged, client.Retrying:
	}
}

func (t *tracker) currentPhase() client.Phase {
	if p := t.phase.Load(); p != nil {
		return *p
	}
	return "waiting"
}

// done is how much of the current phase's work is done, in bytes.
func (t *tracker) done() int64 {
	if t.currentPhase() == client.Checking {
		return min(t.hashed.Load(), t.size)
	}
	return t.transferred()
}

// transferred is how much is on the other side or on its way.
func (t *tracker) transferred() int64 {
	n := t.resumed.Load() + t.moved.Load() + t.instant.Load()
	if t.size >= 0 {
		n = min(n, t.size)
	}
	for {
		old := t.highest.Load()
		if n <= old {
			return old
		}
		if t.highest.CompareAndSwap(old, n) {
			return n
		}
	}
}

// status is the numbers of a file in a line: "43 %  1.2 GiB of 2.8 GiB  98 MiB/s  16 s left", or without
// the bytes where there is little room.
func (t *tracker) status(now time.Time, short bool) string {
	phase, done := t.currentPhase(), t.done()
	rate := t.speed.rate(now, string(phase), done)
	text := humanize.IBytes(uint64(max(done, 0)))
	switch {
	case t.size >= 0 && short:
		text = percent(done, t.size)
	case t.size >= 0:
		text = fmt.Sprintf("%s  %s of %s", percent(done, t.size), text, humanize.IBytes(uint64(t.size)))
	}
	if phase == client.Finishing {
		return text + "  finishing"
	}
	return text + pace(rate, t.size-done, t.size >= 0)
}

// pace tells speed and time left, once they are known.
func pace(rate float64, left int64, known bool) string {
	if rate <= 0 {
		return ""
	}
	text := "  " + humanize.IBytes(uint64(rate)) + "/s"
	if known && left > 0 {
		text += "  " + roughly(time.Duration(float64(left)/rate*float64(time.Second))) + " left"
	}
	return text
}

// percent rounds down, so that 100 % is done.
func percent(part, whole int64) string {
	if whole <= 0 {
		return "100 %"
	}
	return fmt.Sprintf("%d %%", int64(float64(min(part, whole))/float64(whole)*100))
}

// roughly is a duration as people say it: one unit, rounded.
func roughly(d time.Duration) string {
	switch {
	case d < time.Second:
		return "1 s"
	case d < 90*time.Second:
		return fmt.Sprintf("%d s", int(d.Seconds()+0.5))
	case d < 90*time.Minute:
		return fmt.Sprintf("%d min", int(d.Minutes()+0.5))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()+0.5))
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24+0.5))
}

// meter is a speed over the last seconds. Short stops do not make it jump.
type meter struct {
	mu      sync.Mutex
	what    string
	samples []sample
}

type sample struct {
	at    time.Time
	bytes int64
}

const (
	meterWindow = 10 * time.Second
	meterStep   = 500 * time.Millisecond
	meterWarmUp = time.Second // before that a speed would be chance
)

// rate notes how much is done and returns bytes per second, 0 if it cannot be told yet. A change of
// what begins anew.
func (m *meter) rate(now time.Time, what string, bytes int64) float64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	if what != m.what {
		m.what, m.samples = what, nil
	}
	if n := len(m.samples); n == 0 || now.Sub(m.samples[n-1].at) >= meterStep {
		m.samples = append(m.samples, sample{now, bytes})
	}
	old := slices.IndexFunc(m.samples, func(s sample) bool { return now.Sub(s.at) <= meterWindow })
	m.samples = m.samples[max(old, 0):]
	first := m.samples[0]
	if now.Sub(first.at) < meterWarmUp {
		return 0
	}
	return float64(bytes-first.bytes) / now.Sub(first.at).Seconds()
}

// board is all files of a command.
type board struct {
	noun  string       // what they are called; "": files
	files atomic.Int64 // in all
	bytes atomic.Int64 // of them, those of unknown size not counted

	mu       sync.Mutex
	active   []*tracker
	ended    int
	endBytes int64
	speed    meter
}

func (b *board) start(t *tracker) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.active = append(b.active, t)
}

func (b *board) end(t *tracker) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.active = slices.DeleteFunc(b.active, func(a *tracker) bool { return a == t })
	b.ended++
	b.endBytes += max(t.size, 0) // a failed file too: it is not waited for any more
}

func (b *board) snapshot() (active []*tracker, ended int, done int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	done = b.endBytes
	for _, t := range b.active {
		if t.size >= 0 {
			done += t.transferred()
		}
	}
	return slices.Clone(b.active), b.ended, done
}

// status is all files in a line; short as for one file.
func (b *board) status(now time.Time, short bool) string {
	_, ended, done := b.snapshot()
	total := b.bytes.Load()
	rate := b.speed.rate(now, "", done)
	if short {
		return percent(done, total) + pace(rate, total-done, true)
	}
	return fmt.Sprintf("%d of %d %s  %s  %s of %s", ended, b.files.Load(), cmp.Or(b.noun, "files"), percent(done, total),
		humanize.IBytes(uint64(done)), humanize.IBytes(uint64(total))) + pace(rate, total-done, true)
}

// display shows a board.
type display interface {
	start(t *tracker)
	end(t *tracker)
	say(line string) // a line for people
	result(line string)
	close() // no more is shown when it returns
}

// newDisplay chooses how progress is shown: bars on a terminal, a line every few seconds elsewhere.
func newDisplay(ctx context.Context, app *app, b *board, quiet, asJSON bool) display {
	switch {
	case quiet:
		return &plain{app: app, board: b, mute: true}
	case isTerminal(app.stderr) && app.env("TERM", "dumb") != "dumb":
		return newBars(ctx, app, b)
	}
	p := &plain{app: app, board: b, stop: make(chan struct{})}
	if !asJSON { // who reads JSON has it there
		p.ticking.Go(p.tick)
	}
	return p
}

const plainInterval = 5 * time.Second

// plain shows progress as lines.
type plain struct {
	app     *app
	board   *board
	mute    bool
	stop    chan struct{}
	ticking sync.WaitGroup
	mu      sync.Mutex
}

func (p *plain) start(*tracker) {}
func (p *plain) end(*tracker)   {}

func (p *plain) say(line string) {
	if !p.mute {
		p.write(p.app.stderr, line)
	}
}

func (p *plain) result(line string) { p.write(p.app.stdout, line) }

func (p *plain) write(w io.Writer, line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintln(w, line)
}

func (p *plain) close() {
	if p.stop != nil {
		close(p.stop)
	}
	p.ticking.Wait()
}

func (p *plain) tick() {
	ticker := time.NewTicker(plainInterval)
	defer ticker.Stop()
	sampling := time.NewTicker(meterStep)
	defer sampling.Stop()
	for {
		select {
		case <-p.stop:
			return
		case now := <-sampling.C: // keeps the speeds of all up to date
			p.lines(now)
		case now := <-ticker.C:
			for _, line := range p.lines(now) {
				p.say(line)
			}
		}
	}
}

// lines are one for each of a few files, and one for all if there are many.
func (p *plain) lines(now time.Time) []string {
	active, _, _ := p.board.snapshot()
	total := p.board.status(now, false)
	var lines []string
	for _, t := range active {
		lines = append(lines, fmt.Sprintf("%s: %s  %s", t.name, t.currentPhase(), t.status(now, false)))
	}
	if p.board.files.Load() > 1 {
		if len(lines) > 4 {
			lines = nil
		}
		lines = append(lines, total)
	}
	return lines
}
