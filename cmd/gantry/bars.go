package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mattn/go-runewidth"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"gantry/client"
)

const (
	barRefresh = 150 * time.Millisecond
	// A file smaller than this is over before its bar could be read.
	barWorth = 1 << 20
)

// columns is what of a file fits into the lines of a terminal. The share, the speed and the time left
// always do; the bar gets the room that is left.
type columns struct {
	name  int  // width of the name
	phase bool // there is a column for it
	short bool // no number of bytes
}

func columnsFor(width int) columns {
	switch {
	case width >= 100:
		return columns{name: 28, phase: true}
	case width >= 72:
		return columns{name: 20, phase: true, short: true}
	}
	return columns{name: 12, short: true}
}

// head is what stands before the bar.
func (c columns) head(name string, phase client.Phase) string {
	text := runewidth.FillRight(runewidth.Truncate(name, c.name, "…"), c.name)
	if c.phase {
		text += fmt.Sprintf("  %-11s", phase)
	}
	return text + " "
}

// bars shows progress on a terminal: a bar for each large file that is under way, and one for all.
type bars struct {
	app   *app
	board *board
	p     *mpb.Progress
	width atomic.Int64
	both  bool // results go to the terminal too, so they must not run into the bars

	mu    sync.Mutex
	shown map[*tracker]*mpb.Bar
	total *mpb.Bar

	undo    func() bool
	stop    chan struct{}
	ticking sync.WaitGroup
}

func newBars(ctx context.Context, app *app, b *board) *bars {
	d := &bars{
		app: app, board: b, both: isTerminal(app.stdout), shown: map[*tracker]*mpb.Bar{}, stop: make(chan struct{}),
		p: mpb.New(mpb.WithOutput(app.stderr), mpb.WithRefreshRate(barRefresh), mpb.WithWidth(24)),
	}
	d.measure()
	// The terminal echoes ^C where the cursor is, and the bars are drawn over from there.
	d.undo = context.AfterFunc(ctx, func() { _, _ = io.WriteString(app.stderr, "\r") })
	d.ticking.Go(d.tick)
	return d
}

func style() mpb.BarStyleComposer {
	return mpb.BarStyle().Lbound("").Rbound("").Filler("━").Tip("━").Padding("─")
}

func (d *bars) start(t *tracker) {
	if t.size >= 0 && t.size < barWorth {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	bar := d.p.New(0, style(),
		mpb.PrependDecorators(
			decor.Any(func(decor.Statistics) string { return d.columns().head(t.name, t.currentPhase()) })),
		mpb.AppendDecorators(
			decor.Any(func(decor.Statistics) string { return " " + t.status(time.Now(), d.columns().short) })))
	bar.SetTotal(max(t.size, 1), false)
	d.shown[t] = bar
}

func (d *bars) end(t *tracker) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if bar := d.shown[t]; bar != nil {
		bar.Abort(true)
		delete(d.shown, t)
	}
}

func (d *bars) say(line string) { _, _ = fmt.Fprintln(d.p, line) } // after close there is nothing to say

func (d *bars) result(line string) {
	if d.both {
		d.say(line)
		return
	}
	fmt.Fprintln(d.app.stdout, line)
}

func (d *bars) tick() {
	ticker := time.NewTicker(barRefresh)
	defer ticker.Stop()
	for {
		select {
		case <-d.stop:
			return
		case <-ticker.C:
			d.update()
		}
	}
}

// measure looks how wide the terminal is, which may change at any time.
func (d *bars) measure() {
	width := 80
	if f, ok := d.app.stderr.(*os.File); ok {
		if w, _, err := term.GetSize(int(f.Fd())); err == nil && w > 0 {
			width = w
		}
	}
	d.width.Store(int64(width))
}

func (d *bars) columns() columns { return columnsFor(int(d.width.Load())) }

func (d *bars) update() {
	d.measure()
	d.mu.Lock()
	defer d.mu.Unlock()
	for t, bar := range d.shown {
		bar.SetCurrent(t.done())
	}
	if d.board.files.Load() < 2 {
		return
	}
	if d.total == nil {
		d.total = d.p.New(0, style(), mpb.BarPriority(1<<30),
			mpb.PrependDecorators(decor.Any(func(decor.Statistics) string { return d.columns().head("all "+cmp.Or(d.board.noun, "files"), "") })),
			mpb.AppendDecorators(decor.Any(func(decor.Statistics) string {
				return " " + d.board.status(time.Now(), d.columns().short)
			})))
	}
	_, _, done := d.board.snapshot()
	d.total.SetTotal(max(d.board.bytes.Load(), 1), false)
	d.total.SetCurrent(done)
}

func (d *bars) close() {
	d.undo()
	close(d.stop)
	d.ticking.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, bar := range d.shown {
		bar.Abort(true)
	}
	if d.total != nil {
		d.total.Abort(true)
	}
	d.p.Wait()
}
