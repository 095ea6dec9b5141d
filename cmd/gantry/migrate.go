package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"gantry/client"
	"gantry/config"
	"gantry/internal/vfs"
	"gantry/meta"
	"gantry/meta/sqldb"
	"gantry/migrate"
	"gantry/server/ingest"
	"gantry/upload"
)

// migrateLock is held by the one process of a node that moves blobs between stores.
const migrateLock = "lock.migrate"

type migrateOptions struct {
	migrate.Options
	rate   config.Bytes
	dryRun bool
	check  bool
	look   migrate.CheckOptions
	quiet  bool
	json   bool
}

func newMigrateCommand(app *app) *cobra.Command {
	var opt migrateOptions
	cmd := &cobra.Command{
		Use:   "migrate --from STORE --to STORE",
		Short: "Move everything from one store to another, while the servers run",
		Long: "Move everything from one store to another. Uploads, downloads and deletes go on meanwhile, and every\n" +
			"file can be downloaded at every moment. Interrupted or killed, the same command goes on where it\n" +
			"stopped. An object is copied, verified in the new store, and only then used; the servers delete the\n" +
			"old one delete_grace later.\n\n" +
			"Before: describe both stores in the configuration of all nodes, and restart them, or they cannot serve\n" +
			"what was moved. Set store to the new one, too, so that nothing new goes into the old one.\n" +
			"After: run it with --check, and take the old store out of the configuration when nothing is in it any more.\n\n" +
			"--check compares both stores with the database: every blob has its object (--deep: with the right bytes),\n" +
			"and every object its blob. It says what it would repair; --repair does it.",
		Example: "  gantry migrate --config gantry.yaml --from ceph --to oss --dry-run\n" +
			"  gantry migrate --config gantry.yaml --from ceph --to oss --rate 100MiB\n" +
			"  gantry migrate --config gantry.yaml --from ceph --to oss --check --deep",
		Args: cobra.NoArgs,
	}
	flags := cmd.Flags()
	config.AddDataFlags(flags)
	flags.StringVar(&opt.From, "from", "", "the store to empty")
	flags.StringVar(&opt.To, "to", "", "the store that gets everything")
	flags.Var(bytesFlag{&opt.rate}, "rate", "copy no more than this per second, like 100MiB; no limit")
	flags.IntVar(&opt.Parallel, "parallel", 4, "blobs at a time")
	flags.BoolVar(&opt.Follow, "follow", false, "go on until no transfer goes into the old store any more")
	flags.BoolVar(&opt.dryRun, "dry-run", false, "say what there is to do, and do nothing")
	flags.BoolVar(&opt.check, "check", false, "compare both stores with the database, and move nothing")
	flags.BoolVar(&opt.look.Deep, "deep", false, "with --check: read all bytes and compare their digests")
	flags.BoolVar(&opt.look.Repair, "repair", false, "with --check: repair what is found")
	flags.BoolVarP(&opt.quiet, "quiet", "q", false, "no progress")
	flags.BoolVar(&opt.json, "json", false, "the result, or each finding, as a JSON object")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		err := opt.validate()
		var c config.Config
		if err == nil {
			c, err = config.Load(cmd.Flags(), app.environ)
		}
		if err != nil {
			return usageError{err}
		}
		return nodeFailure(opt.run(cmd.Context(), app, &c))
	}
	return cmd
}

// bytesFlag is a flag for a number of bytes.
type bytesFlag struct{ value *config.Bytes }

func (f bytesFlag) Set(text string) error { return f.value.UnmarshalText([]byte(text)) }
func (f bytesFlag) Type() string          { return "size" }
func (f bytesFlag) String() string {
	if f.value == nil || *f.value == 0 {
		return ""
	}
	return f.value.String()
}

func (o *migrateOptions) validate() error {
	switch {
	case o.From == "" || o.To == "":
		return errors.New("name both stores, with --from and --to")
	case o.From == o.To:
		return errors.New("--from and --to are the same store")
	case o.Parallel < 1:
		return errors.New("--parallel is 1 or more")
	case (o.look.Deep || o.look.Repair) && !o.check:
		return errors.New("--deep and --repair go with --check")
	case o.check && (o.dryRun || o.Follow):
		return errors.New("--check moves nothing: --dry-run and --follow do not go with it")
	}
	o.Rate = int64(o.rate)
	return nil
}

// run opens database and stores beside the servers that use them.
func (o *migrateOptions) run(ctx context.Context, app *app, c *config.Config) (err error) {
	mark := databaseName
	if c.Database != "" {
		mark = databaseMark
	}
	if _, err := os.Stat(filepath.Join(c.Data, mark)); err != nil {
		return fmt.Errorf("%s is not a node's data directory; run this on a node, with its configuration: %w", c.Data, err)
	}
	node, err := nodeID(c.Data)
	if err != nil {
		return err
	}
	o.Owner = "migrate-" + node
	if !o.dryRun && (!o.check || o.look.Repair) {
		lock, err := vfs.LockDir(c.Data, migrateLock)
		if err != nil {
			return fmt.Errorf("another gantry migrate is running: %w", err)
		}
		defer func() { err = errors.Join(err, lock.Close()) }()
	}
	log := newLogger(c, app.stderr)
	if o.quiet || isTerminal(app.stderr) {
		log = slog.New(slog.DiscardHandler) // it would run into the bars
	}
	db, err := openDatabase(ctx, c, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if c.Database != "" && c.UsesLocal() {
		if err := oneStore(ctx, c, db); err != nil {
			return err
		}
	}
	// Under a name of its own: of what is half written under the node's it would delete the node's, and the node its.
	stores, err := openStores(ctx, c, node, o.Owner, db)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stores.close()) }()
	return o.with(ctx, app, db, stores, log)
}

func (o *migrateOptions) with(ctx context.Context, app *app, db *sqldb.DB, stores *stores, log *slog.Logger) error {
	deps := migrate.Deps{DB: db, Stores: stores.all, Log: log}
	w := &migrateWatcher{app: app, quiet: o.quiet, trackers: map[string]*tracker{}}
	if !o.check && !o.dryRun {
		w.board.noun = "blobs"
		w.display = newDisplay(ctx, app, &w.board, o.quiet, o.json)
	}
	deps.Watcher = w
	m, err := migrate.New(o.Options, deps)
	if err != nil {
		return err
	}
	switch {
	case o.check:
		told := findings{app: app, asJSON: o.json}
		if err := m.Check(ctx, o.look, func(f migrate.Finding) {
			told.add(ingest.Finding{ID: f.ID, Problem: f.Problem, Repair: f.Repair, Repaired: f.Repaired})
		}); err != nil {
			return err
		}
		return told.end()
	case o.dryRun:
		return o.plan(ctx, app, m)
	}
	began := time.Now()
	r, err := m.Run(ctx)
	w.close()
	if ctx.Err() != nil {
		fmt.Fprintf(app.stderr, "interrupted; %s moved. Run the same command again to go on\n", plural(int(r.Moved), "blob"))
		return reported{exitInterrupted}
	}
	if o.json {
		_ = json.NewEncoder(app.stdout).Encode(migrated{o.From, o.To, r.Moved, r.Bytes, r.Failed, usageOf(&r.Left.From)})
	} else {
		fmt.Fprintf(app.stdout, "moved %s, %s, from %s to %s in %s\n", plural(int(r.Moved), "blob"), humanize.IBytes(uint64(r.Bytes)), o.From, o.To,
			seconds(time.Since(began).Seconds()))
		if err == nil {
			o.remains(app, &r.Left.From, r.Failed)
		}
	}
	if err == nil && r.Failed > 0 {
		return reported{exitSome} // each was told
	}
	return err
}

// migrated is the result as JSON.
type migrated struct {
	From   string `json:"from"`
	To     string `json:"to"`
	Moved  int64  `json:"moved"`
	Bytes  int64  `json:"bytes"`
	Failed int64  `json:"failed"`
	Left   usage  `json:"left"` // in the old store
}

type usage struct {
	Blobs     int64 `json:"blobs"`
	Bytes     int64 `json:"bytes"`
	Condemned int64 `json:"condemned"`
	Lost      int64 `json:"lost"`
	Waiting   int64 `json:"transfers_waiting"`
	Halted    int64 `json:"transfers_halted"`
	Leftovers int64 `json:"old_objects"`
}

func usageOf(u *meta.Usage) usage {
	return usage{u.Live, u.Bytes, u.Condemned, u.Lost, u.Waiting, u.Halted, u.Leftovers}
}

// plan is --dry-run.
func (o *migrateOptions) plan(ctx context.Context, app *app, m *migrate.Migrator) error {
	p, err := m.Plan(ctx)
	if err != nil {
		return err
	}
	if o.json {
		return json.NewEncoder(app.stdout).Encode(migrated{From: o.From, To: o.To, Left: usageOf(&p.From)})
	}
	fmt.Fprintf(app.stdout, "would move %s, %s, from %s to %s\n", plural(int(p.From.Live), "blob"), humanize.IBytes(uint64(p.From.Bytes)), o.From, o.To)
	if p.To.Copying > 0 {
		fmt.Fprintf(app.stdout, "%s begun already\n", plural(int(p.To.Copying), "blob"))
	}
	p.From.Live = 0
	o.remains(app, &p.From, 0)
	return nil
}

// remains tells what is in the old store still, and what is to be done about it.
func (o *migrateOptions) remains(app *app, u *meta.Usage, failed int64) {
	out := func(format string, args ...any) { fmt.Fprintf(app.stdout, format+"\n", args...) }
	if failed > 0 {
		out("%s could not be moved; run this again, or look with --check --deep", plural(int(failed), "blob"))
	}
	if came := u.Live - failed; came > 0 {
		out("%s came to %s meanwhile; run this again", plural(int(came), "blob"), o.From)
	}
	if u.Waiting > 0 {
		out("%s on the way to %s: set store to another one in the configuration of all nodes, and run this again", plural(int(u.Waiting), "transfer"), o.From)
	}
	if u.Halted > 0 {
		out("%s given up on the way to %s; see \"gantry transfers list\"", plural(int(u.Halted), "transfer"), o.From)
	}
	if u.Lost > 0 {
		out("%s lost in %s: delete the files, or upload the same content again", plural(int(u.Lost), "blob"), o.From)
	}
	if u.Condemned > 0 {
		out("%s without a file in %s: to be deleted by the servers", plural(int(u.Condemned), "blob"), o.From)
	}
	if u.Leftovers > 0 {
		out("%s still in %s: to be deleted by the servers, delete_grace after the move", plural(int(u.Leftovers), "old object"), o.From)
	}
	if *u == (meta.Usage{Copying: u.Copying}) && failed == 0 && !o.dryRun {
		out("nothing is left in %s", o.From)
	}
}

// migrateWatcher shows how a run gets on.
type migrateWatcher struct {
	app     *app
	quiet   bool
	board   board
	display display

	mu       sync.Mutex
	trackers map[string]*tracker // by blob
}

// Waiting is migrate.Watcher's.
func (w *migrateWatcher) Waiting(most time.Duration) {
	if w.display != nil {
		w.display.say(fmt.Sprintf("another gantry migrate is running, or was killed on another node; waiting up to %s to see which", roughly(most)))
	}
}

// Found is migrate.Watcher's.
func (w *migrateWatcher) Found(blobs, bytes int64) {
	w.board.files.Store(blobs)
	w.board.bytes.Store(bytes)
}

// Begun is migrate.Watcher's.
func (w *migrateWatcher) Begun(b *upload.Blob, again error) {
	if again != nil {
		w.display.say(oneLine(b.ID + ": " + again.Error() + " — trying again"))
		return
	}
	t, phase := &tracker{name: b.ID, size: b.Size}, client.Phase("copying")
	t.phase.Store(&phase)
	w.mu.Lock()
	w.trackers[b.ID] = t
	w.mu.Unlock()
	w.board.start(t)
	w.display.start(t)
}

// Copied is migrate.Watcher's.
func (w *migrateWatcher) Copied(b *upload.Blob, bytes int64) {
	w.mu.Lock()
	t := w.trackers[b.ID]
	w.mu.Unlock()
	if t == nil {
		return
	}
	t.moved.Store(bytes)
	if bytes == b.Size {
		phase := client.Phase("verifying")
		t.phase.Store(&phase)
	}
}

// Ended is migrate.Watcher's.
func (w *migrateWatcher) Ended(b *upload.Blob, _ bool, err error) {
	w.mu.Lock()
	t := w.trackers[b.ID]
	delete(w.trackers, b.ID)
	w.mu.Unlock()
	if t != nil {
		w.board.end(t)
		w.display.end(t)
	}
	switch {
	case err == nil:
	case w.quiet:
		fmt.Fprintln(w.app.stderr, oneLine(b.ID+": "+err.Error()))
	default:
		w.display.say(oneLine(b.ID + ": " + err.Error()))
	}
}

func (w *migrateWatcher) close() { w.display.close() }
