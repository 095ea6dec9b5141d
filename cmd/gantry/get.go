package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"gantry/client"
)

func newGetCommand(app *app) *cobra.Command {
	var server connection
	var opt carriage
	var force bool
	cmd := &cobra.Command{
		Use:   "get ID|NAME [FILE|DIR|-]",
		Short: "Download a file",
		Long: "Download a file, to its own name, to FILE, into DIR, or to standard output (\"-\").\n\n" +
			"The file appears when its SHA-1 was checked; until then it is FILE.gantry-part. Interrupted, the\n" +
			"same command goes on where it stopped.",
		Args: cobra.RangeArgs(1, 2),
	}
	flags := cmd.Flags()
	server.flags(app, flags)
	opt.flags(flags)
	flags.BoolVarP(&force, "force", "f", false, "overwrite a file that is there")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := opt.check(); err != nil {
			return err
		}
		c, err := server.open(app, opt.apply)
		if err != nil {
			return err
		}
		defer c.Close()
		f, err := find(cmd.Context(), c, args[0])
		if err != nil {
			return err
		}
		to := ""
		if len(args) > 1 {
			to = args[1]
		}
		g := &get{app: app, c: c, opt: &opt, force: force, file: &f}
		if to == "-" {
			return g.toStdout(cmd.Context())
		}
		target, err := targetFor(&f, to)
		if err != nil {
			return err
		}
		return g.toFile(cmd.Context(), target)
	}
	return cmd
}

// targetFor is the path that a file is saved to.
func targetFor(f *client.File, to string) (string, error) {
	info, err := os.Stat(to)
	isDir := to == "" || strings.HasSuffix(to, "/") || err == nil && info.IsDir()
	if !isDir {
		return to, nil
	}
	name, ok := localName(f)
	if !ok {
		return "", usageError{fmt.Errorf("the file's name %q is not one for a file here; say where to save it", f.Name)}
	}
	return filepath.Join(to, name), nil
}

// get is one run of the command.
type get struct {
	app   *app
	c     *client.Client
	opt   *carriage
	force bool
	file  *client.File
}

func (g *get) toFile(ctx context.Context, target string) error {
	return g.show(ctx, target, func(opt client.DownloadOptions) (client.Downloaded, error) {
		return g.c.Download(ctx, g.file.ID, target, opt)
	})
}

func (g *get) toStdout(ctx context.Context) error {
	if g.opt.json {
		return usageError{errors.New("--json and the file cannot both go to standard output")}
	}
	return g.show(ctx, "", func(opt client.DownloadOptions) (client.Downloaded, error) {
		return g.c.WriteTo(ctx, g.app.stdout, g.file.ID, opt)
	})
}

// show runs a download with its progress.
func (g *get) show(ctx context.Context, target string, do func(client.DownloadOptions) (client.Downloaded, error)) error {
	b := &board{}
	b.files.Store(1)
	b.bytes.Store(g.file.Size)
	screen := newDisplay(ctx, g.app, b, g.opt.quiet, g.opt.json)
	out := newEvents(g.app.stdout, g.opt.json, b)
	t := &tracker{name: oneLine(g.file.FullName()), size: g.file.Size}
	b.start(t)
	screen.start(t)
	var mu sync.Mutex
	var announced time.Time
	retrying := func(e client.Event) {
		mu.Lock()
		defer mu.Unlock()
		reason := oneLine(client.Reason(e.Err))
		out.write(retryEvent{"retry", t.name, e.What, reason, e.Delay.Seconds()})
		if now := time.Now(); now.After(announced) {
			announced = now.Add(e.Delay)
			screen.say(fmt.Sprintf("%s: %s — trying again in %s", t.name, reason, roughly(e.Delay)))
		}
	}
	done, err := do(client.DownloadOptions{Force: g.force, Events: func(e client.Event) {
		t.event(e)
		switch {
		case e.Kind == client.Retrying:
			retrying(e)
		case e.Kind == client.Resumed && e.Bytes > 0:
			screen.say(fmt.Sprintf("%s: going on where it stopped, %s of %s are here", t.name,
				humanize.IBytes(uint64(e.Bytes)), humanize.IBytes(uint64(t.size))))
		}
	}})
	b.end(t)
	screen.end(t)
	if err == nil {
		g.tell(screen, out, target, &done)
	} else if ctx.Err() == nil {
		out.write(errorEvent{"file_error", t.name, message(err), exitCode(err)})
	}
	out.close()
	screen.close()
	if ctx.Err() != nil {
		text := "interrupted"
		if target != "" {
			text += "; run the same command again to go on"
		}
		fmt.Fprintln(g.app.stderr, text)
		return reported{exitInterrupted}
	}
	return err
}

func (g *get) tell(screen display, out *events, target string, done *client.Downloaded) {
	took := done.Duration.Seconds()
	text := fmt.Sprintf("%s in %s", humanize.IBytes(uint64(done.File.Size)), seconds(took))
	if took >= meterWarmUp.Seconds() {
		text += fmt.Sprintf(", %s/s", humanize.IBytes(uint64(float64(done.BytesReceived)/took)))
	}
	out.write(fileEvent{
		Event: "file_done", ID: done.File.ID, Name: done.File.FullName(), Size: done.File.Size, SHA1: known(done.File.SHA1),
		Saved: target, Seconds: took,
	})
	screen.say(text)
	if target != "" && !g.opt.json {
		screen.result(done.File.ID + "  " + oneLine(target))
	}
}
