package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"gantry/chunkstore/disk"
	"gantry/config"
	"gantry/internal/vfs"
	"gantry/meta/sqldb"
	"gantry/server"
	"gantry/transfer"
)

func newTransferCommand(app *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "transfer",
		Short: "Run a node's transfer worker as a process of its own",
		Long: "Run a node's transfer worker as a process of its own, beside \"gantry serve --transfer-process\".\n" +
			"Both have the same data directory and the same queue (--queue), and may have the same configuration\n" +
			"file: what concerns only the other is not looked at.\n\n" +
			"SIGTERM and Ctrl-C give transfers under way back; whoever runs next does them.",
		Args: cobra.NoArgs,
	}
	config.AddFlags(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := config.Load(cmd.Flags(), app.environ)
		if err == nil && c.Queue == "" {
			err = errors.New("a process of its own is told of transfers by a queue: name a RabbitMQ broker with --queue, here and to gantry serve")
		}
		if err != nil {
			return usageError{err}
		}
		return nodeFailure(runTransfers(cmd.Context(), &c, app.stdout, newLogger(&c, app.stderr)))
	}
	return cmd
}

// transferrer is the parts of a process that does the transfers of a node. Of the node's directory it
// reads the staged bytes, and it writes to the local store and to the database.
type transferrer struct {
	lock   *vfs.DirLock
	db     *sqldb.DB
	stores *stores
	queue  *wakeup
	worker *transfer.Worker
}

func openTransferrer(ctx context.Context, c *config.Config, reg prometheus.Registerer, log *slog.Logger) (_ *transferrer, err error) {
	database := databaseName
	if c.Database != "" {
		database = databaseMark
	}
	for _, name := range []string{nodeName, database} {
		if _, err := os.Stat(filepath.Join(c.Data, name)); err != nil {
			return nil, fmt.Errorf("%s is not yet a node's data directory; start gantry serve first: %w", c.Data, err)
		}
	}
	t := &transferrer{}
	defer func() {
		if err != nil {
			err = errors.Join(err, t.close())
		}
	}()
	if t.lock, err = vfs.LockDir(c.Data, transferLock); err != nil {
		return nil, fmt.Errorf("another process does the transfers of this node: %w", err)
	}
	node, err := nodeID(c.Data)
	if err != nil {
		return nil, err
	}
	if t.db, err = openDatabase(ctx, c, log); err != nil {
		return nil, err
	}
	if c.Database != "" {
		if err := oneStore(ctx, c, t.db); err != nil {
			return nil, err
		}
	}
	staging, err := vfs.OpenOS(filepath.Join(c.Data, "staging"))
	if err != nil {
		return nil, err
	}
	if t.stores, err = openStores(ctx, c, node, node, t.db); err != nil {
		return nil, err
	}
	if t.queue, err = openQueue(ctx, c, false, true, reg, log); err != nil {
		return nil, err
	}
	t.worker = newWorker(c, node, t.db, disk.NewReader(staging), t.stores.all, t.queue, log)
	return t, nil
}

func (t *transferrer) close() error {
	var errs []error
	if t.queue != nil {
		errs = append(errs, t.queue.close())
	}
	if t.stores != nil {
		errs = append(errs, t.stores.close())
	}
	if t.db != nil {
		errs = append(errs, t.db.Close())
	}
	if t.lock != nil {
		errs = append(errs, t.lock.Close())
	}
	return errors.Join(errs...)
}

// checks are the parts of /readyz.
func (t *transferrer) checks() []server.Check {
	checks := append([]server.Check{{Name: "database", Run: t.db.Ping}}, t.queue.checks...)
	return append(checks, t.stores.checks(false)...)
}

// runTransfers does a node's transfers until ctx is done.
func runTransfers(ctx context.Context, c *config.Config, stdout io.Writer, log *slog.Logger) (err error) {
	reg := prometheus.NewRegistry()
	t, err := openTransferrer(ctx, c, reg, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.close()) }()
	listeners, err := listen(ctx, c.TransferManagement, c.TransferProbes)
	if err != nil {
		return err
	}
	management, probes := listeners[0], listeners[1]
	opt := server.Options{DrainTimeout: c.Drain, Log: log}
	srv := server.New(nil, opt)
	deps := server.ManagementDeps{Transfers: t.db, Nodes: t.db, Checks: t.checks(), Registry: reg, Version: version()}
	managed := []served{{management, srv.Management(deps)}}
	if probes != nil {
		managed = append(managed, served{probes, srv.Probes(deps)})
	}
	context.AfterFunc(ctx, srv.Drain)

	// The management listener outlives the worker, so that one can see how it ends.
	manageCtx, stopManagement := context.WithCancel(context.WithoutCancel(ctx))
	defer stopManagement()
	working, stopWork := context.WithCancel(ctx)
	defer stopWork()
	var running errgroup.Group
	for _, m := range managed {
		running.Go(func() error {
			defer stopWork() // a listener that fails ends the process
			return server.Serve(manageCtx, m.listener, m.handler, opt)
		})
	}
	if probes != nil {
		fmt.Fprintf(stdout, "probes on http://%s\n", probes.Addr())
	}
	fmt.Fprintf(stdout, "management on http://%s\n", management.Addr())
	fmt.Fprintln(stdout, "waiting for transfers")
	err = t.worker.Run(working)
	stopManagement()
	return errors.Join(err, running.Wait())
}
