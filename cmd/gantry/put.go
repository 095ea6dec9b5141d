package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"gantry/client"
)

// putOptions are the flags of put.
type putOptions struct {
	carriage
	server      connection
	name        string
	path        string
	contentType string
	ifExists    string
	noInstant   bool
	direct      bool
}

func newPutCommand(app *app) *cobra.Command {
	var opt putOptions
	cmd := &cobra.Command{
		Use:   "put FILE|DIR|-…",
		Short: "Upload files, directories or standard input",
		Long: "Upload files, directories or standard input (\"-\"). Prints a line for each file: its id and name.\n\n" +
			"Directories keep their structure in the files' path. Large files go up in chunks, several at a time;\n" +
			"what fails on the way is tried again. When the server turns out to have the content already, its\n" +
			"bytes are not sent (instant upload). Interrupted, the same command goes on where it stopped, except\n" +
			"for standard input.",
		Args: cobra.MinimumNArgs(1),
	}
	flags := cmd.Flags()
	opt.server.flags(app, flags)
	opt.carriage.flags(flags)
	flags.Var(&opt.chunkSize, "chunk-size", "length of a chunk, like 16MiB; the server decides in the end")
	flags.StringVar(&opt.name, "name", "", "the file's name on the server")
	flags.StringVar(&opt.path, "path", "", "folder on the server, like photos/2026")
	flags.StringVar(&opt.contentType, "content-type", "", "media type; default: by name, or by the first bytes")
	flags.StringVar(&opt.ifExists, "if-exists", "keep", "when there is a file of that path and name: keep both, skip, or replace")
	flags.BoolVar(&opt.noInstant, "no-instant", false, "send the bytes even if the server has them")
	flags.BoolVar(&opt.direct, "direct", false, "send large files to the server's store, past the server, if both can do that")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := opt.check(args); err != nil {
			return err
		}
		c, err := opt.server.open(app, func(o *client.Options) {
			opt.apply(o)
			if dir := app.stateDir(); dir != "" {
				o.States = client.NewFileStates(dir)
			}
		})
		if err != nil {
			return err
		}
		defer c.Close()
		return newPut(cmd.Context(), app, c, &opt).run(cmd.Context(), args)
	}
	return cmd
}

func (o *putOptions) check(args []string) error {
	if err := o.carriage.check(); err != nil {
		return err
	}
	switch o.ifExists {
	case "keep", "skip", "replace":
	default:
		return usageError{fmt.Errorf("--if-exists is keep, skip or replace, not %q", o.ifExists)}
	}
	if o.name != "" && len(args) > 1 {
		return usageError{errors.New("--name is for one file, and there are several")}
	}
	stdin := 0
	for _, arg := range args {
		if arg == "-" {
			stdin++
		}
	}
	if stdin > 1 {
		return usageError{errors.New("standard input (\"-\") can be uploaded once only")}
	}
	o.path = strings.Trim(o.path, "/")
	return nil
}

// job is one file to be uploaded.
type job struct {
	local string // "-": standard input
	name  string
	path  string
	size  int64 // -1: unknown
}

func (j *job) full() string { return path.Join(j.path, j.name) }

// put is one run of the command.
type put struct {
	app     *app
	c       *client.Client
	opt     *putOptions
	board   *board
	display display
	events  *events
	start   time.Time

	mu      sync.Mutex
	codes   []int // of failures
	sum     summary
	retries map[string]time.Time // when a reason may be announced again
	unsaved bool                 // something was interrupted that cannot be gone on with
}

func newPut(ctx context.Context, app *app, c *client.Client, opt *putOptions) *put {
	b := &board{}
	return &put{
		app: app, c: c, opt: opt, board: b, display: newDisplay(ctx, app, b, opt.quiet, opt.json),
		events: newEvents(app.stdout, opt.json, b), start: time.Now(), retries: map[string]time.Time{},
	}
}

func (p *put) run(ctx context.Context, args []string) error {
	jobs := p.collect(ctx, args)
	if p.opt.name != "" && len(jobs) > 1 {
		p.events.close()
		p.display.close()
		return usageError{errors.New("--name is for one file, and there are several")}
	}
	p.board.files.Store(int64(len(jobs)))
	var group errgroup.Group
	group.SetLimit(p.opt.parallel)
	for _, j := range jobs {
		if ctx.Err() != nil {
			break
		}
		group.Go(func() error {
			p.upload(ctx, &j)
			return nil // failures are counted; the other files go on
		})
	}
	_ = group.Wait() // see above
	p.finish(ctx)
	p.events.close()
	p.display.close()
	if ctx.Err() != nil {
		return p.interrupted()
	}
	if len(p.codes) > 0 {
		return reported{merge(p.codes, p.sum.Files)}
	}
	return nil
}

func (p *put) interrupted() error {
	if p.sum.Files > 0 || !p.unsaved {
		fmt.Fprintln(p.app.stderr, "interrupted; run the same command again to go on")
	} else {
		fmt.Fprintln(p.app.stderr, "interrupted; standard input cannot be gone on with")
	}
	return reported{exitInterrupted}
}

// collect finds the files that the arguments name.
func (p *put) collect(ctx context.Context, args []string) []job {
	var jobs []job
	add := func(j job) {
		jobs = append(jobs, j)
		p.board.bytes.Add(max(j.size, 0))
	}
	for _, arg := range args {
		if arg == "-" {
			name := p.opt.name
			if name == "" {
				name = "stdin"
			}
			add(job{local: "-", name: name, path: p.opt.path, size: -1})
			continue
		}
		info, err := os.Stat(arg)
		if err != nil {
			p.fail(ctx, arg, &client.LocalError{Op: "open", Path: arg, Err: err})
			continue
		}
		if info.IsDir() {
			p.walk(ctx, arg, add)
			continue
		}
		j := job{local: arg, name: filepath.Base(arg), path: p.opt.path, size: info.Size()}
		if !info.Mode().IsRegular() {
			j.size = -1
		}
		if p.opt.name != "" {
			j.name = p.opt.name
		}
		add(j)
	}
	return jobs
}

// walk adds the regular files of a directory. Symbolic links are not followed: they may lead anywhere.
func (p *put) walk(ctx context.Context, root string, add func(job)) {
	base := filepath.Base(root)
	if base == ".." {
		if absolute, err := filepath.Abs(root); err == nil {
			base = filepath.Base(absolute)
		}
	}
	if base == "." || base == string(filepath.Separator) {
		base = ""
	}
	// The callback never fails: what cannot be read is counted, and the rest goes on.
	_ = filepath.WalkDir(root, func(local string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && !entry.Type().IsRegular() {
			p.display.say("skipped " + oneLine(local) + ": not a regular file")
			return nil
		}
		if err == nil && entry.IsDir() {
			return nil
		}
		var info fs.FileInfo
		if err == nil {
			info, err = entry.Info()
		}
		if err != nil {
			p.fail(ctx, local, &client.LocalError{Op: "read", Path: local, Err: err})
			return nil
		}
		relative, err := filepath.Rel(root, local)
		if err != nil {
			p.fail(ctx, local, &client.LocalError{Op: "read", Path: local, Err: err})
			return nil
		}
		folder := path.Join(p.opt.path, filepath.ToSlash(base), path.Dir(filepath.ToSlash(relative)))
		if folder == "." {
			folder = ""
		}
		add(job{local: local, name: filepath.Base(local), path: folder, size: info.Size()})
		return nil
	})
}

// upload brings one file up and tells how that went.
func (p *put) upload(ctx context.Context, j *job) {
	t := &tracker{name: oneLine(j.full()), size: j.size}
	p.board.start(t)
	p.display.start(t)
	err := p.uploadTracked(ctx, j, t)
	p.board.end(t)
	p.display.end(t)
	if err != nil {
		if ctx.Err() != nil && j.size < 0 {
			p.mu.Lock()
			p.unsaved = true
			p.mu.Unlock()
		}
		p.fail(ctx, j.full(), err)
	}
}

func (p *put) uploadTracked(ctx context.Context, j *job, t *tracker) error {
	opt := client.UploadOptions{
		Name: j.name, Path: j.path, NoInstant: p.opt.noInstant, Direct: p.opt.direct,
		Events: func(e client.Event) { t.event(e); p.heard(t, e) },
	}
	if p.opt.ifExists != "keep" {
		var files []client.File
		err := p.c.Persist(ctx, "look", opt.Events, func(ctx context.Context) (err error) {
			files, err = withName(ctx, p.c, j.full())
			return err
		})
		if err != nil {
			return err
		}
		if len(files) > 0 && p.opt.ifExists == "skip" {
			p.skipped(&files[0])
			return nil
		}
		if len(files) > 0 {
			opt.Replaces = files[0].ID
		}
	}
	src := client.Stream(j.name, p.app.stdin)
	if j.local != "-" {
		var err error
		if src, err = client.OpenFile(j.local); err != nil {
			return err
		}
	}
	defer func() { _ = src.Close() }() // it was only read
	opt.ContentType = p.opt.contentType
	if opt.ContentType == "" {
		opt.ContentType = contentType(j.name, src)
	}
	p.events.write(fileEvent{Event: "file_start", Name: j.full(), Size: max(j.size, 0), Resumable: src.Resumable()})
	result, err := p.c.Upload(ctx, src, opt)
	if err != nil {
		return err
	}
	p.finished(t, &result)
	return nil
}

// heard passes on what the user should know at once.
func (p *put) heard(t *tracker, e client.Event) {
	switch e.Kind {
	case client.Retrying:
		reason := oneLine(client.Reason(e.Err))
		p.events.write(retryEvent{"retry", t.name, e.What, reason, e.Delay.Seconds()})
		if p.announce(reason, e.Delay) {
			p.display.say(fmt.Sprintf("%s: %s — trying again in %s", t.name, reason, roughly(e.Delay)))
		}
	case client.Resumed:
		if e.Bytes > 0 {
			p.display.say(fmt.Sprintf("%s: going on where it stopped, %s of %s are there", t.name,
				humanize.IBytes(uint64(e.Bytes)), humanize.IBytes(uint64(max(t.size, 0)))))
		}
	case client.PhaseChanged:
		p.events.write(phaseEvent{"phase", t.name, e.Phase})
	case client.Hashed, client.Moved, client.Acknowledged, client.Instant:
	}
}

// announce reports whether a retry is worth a line: lanes that fail together say it once.
func (p *put) announce(reason string, delay time.Duration) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if now.Before(p.retries[reason]) {
		return false
	}
	p.retries[reason] = now.Add(delay)
	return true
}

func (p *put) finished(t *tracker, r *client.Result) {
	p.mu.Lock()
	p.sum.Files++
	p.sum.Bytes += r.File.Size
	p.sum.BytesSent += r.BytesSent
	p.sum.BytesNotSent += r.BytesNotSent
	if r.Instant {
		p.sum.Instant++
	}
	p.mu.Unlock()
	if r.Instant {
		p.display.say(fmt.Sprintf("%s: instant — the server already has this content (verified), %s not sent",
			t.name, humanize.IBytes(uint64(r.BytesNotSent))))
	}
	p.events.write(fileEvent{
		Event: "file_done", ID: r.File.ID, Name: r.File.FullName(), Size: r.File.Size, SHA1: known(r.File.SHA1), Instant: &r.Instant,
		BytesSent: &r.BytesSent, BytesResumed: &r.BytesResumed, BytesNotSent: &r.BytesNotSent, Seconds: r.Duration.Seconds(),
	})
	if !p.opt.json {
		p.display.result(r.File.ID + "  " + oneLine(r.File.FullName()))
	}
}

func (p *put) skipped(f *client.File) {
	p.mu.Lock()
	p.sum.Skipped++
	p.mu.Unlock()
	p.events.write(fileEvent{Event: "file_skipped", ID: f.ID, Name: f.FullName(), Size: f.Size})
	p.display.say(oneLine(f.FullName()) + ": skipped, it is there already as " + f.ID)
}

// fail counts a failure and tells it, unless it is that of everything: an interruption.
func (p *put) fail(ctx context.Context, name string, err error) {
	code := exitCode(err)
	if ctx.Err() != nil {
		code = exitInterrupted
	}
	p.mu.Lock()
	p.codes = append(p.codes, code)
	p.sum.Failed++
	p.mu.Unlock()
	if code == exitInterrupted {
		return
	}
	p.events.write(errorEvent{"file_error", name, message(err), code})
	text := "gantry: " + message(err)
	if _, local := errors.AsType[*client.LocalError](err); !local { // those name the file themselves
		text = fmt.Sprintf("gantry: %s: %s", oneLine(name), message(err))
	}
	text = withAdvice(text, err)
	if p.opt.quiet {
		fmt.Fprintln(p.app.stderr, text)
		return
	}
	p.display.say(text)
}

// finish tells the whole.
func (p *put) finish(ctx context.Context) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sum.Event = "summary"
	p.sum.Seconds = time.Since(p.start).Seconds()
	p.sum.Interrupted = ctx.Err() != nil
	p.events.write(p.sum)
	if p.sum.Files == 0 && p.sum.Skipped == 0 || p.opt.json {
		return
	}
	text := fmt.Sprintf("%s, %s in %s", plural(p.sum.Files, "file"), humanize.IBytes(uint64(p.sum.Bytes)), seconds(p.sum.Seconds))
	if p.sum.BytesSent > 0 && p.sum.Seconds >= meterWarmUp.Seconds() {
		text += fmt.Sprintf(", %s/s", humanize.IBytes(uint64(float64(p.sum.BytesSent)/p.sum.Seconds)))
	}
	if p.sum.Instant > 0 {
		text += fmt.Sprintf(", %s instant (%s not sent)", plural(p.sum.Instant, "file"), humanize.IBytes(uint64(p.sum.BytesNotSent)))
	}
	if p.sum.Skipped > 0 {
		text += fmt.Sprintf(", %d skipped", p.sum.Skipped)
	}
	if p.sum.Failed > 0 {
		text += fmt.Sprintf(", %d failed", p.sum.Failed)
	}
	p.display.say(text)
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

func seconds(s float64) string {
	if s < 10 {
		return fmt.Sprintf("%.1f s", s)
	}
	return roughly(time.Duration(s * float64(time.Second)))
}
