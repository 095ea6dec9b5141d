package main

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/mattn/go-runewidth"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

const (
	barRefresh = 150 * time.Millisecond
	nameWidth  = 28
	// A file smaller than this is over before its bar could be read.
	barWorth = 1 << 20
)

// bars shows progress on a terminal: a bar for each large file that is under way, and one for all.
type bars struct {
	app   *app
	board *board
	p     *mpb.Progress
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
	name := runewidth.FillRight(runewidth.Truncate(t.name, nameWidth, "…"), nameWidth)
	bar := d.p.New(0, style(),
		mpb.PrependDecorators(
			decor.Any(func(decor.Statistics) string { return fmt.Sprintf("%s  %-11s ", name, t.currentPhase()) })),
		mpb.AppendDecorators(
			decor.Any(func(decor.Statistics) string { return " " + t.status(time.Now()) })))
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

func (d *bars) update() {
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
			mpb.PrependDecorators(decor.Name(runewidth.FillRight("all files", nameWidth+14))),
			mpb.AppendDecorators(decor.Any(func(decor.Statistics) string { return " " + d.board.status(time.Now()) })))
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
