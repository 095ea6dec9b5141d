package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"gantry/config"
	"gantry/server"
)

func newServeCommand(app *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run an upload node",
		Long: "Run an upload node: the HTTP API and page, and the transfer worker beside it. With --queue and\n" +
			"--transfer-process the worker is a process of its own: gantry transfer.\n\n" +
			"Settings come from defaults, a YAML file (--config), the environment and flags, the latter winning.\n" +
			"Prints \"listening on http://HOST:PORT\" when it is ready. SIGTERM and Ctrl-C let requests finish first.",
		Args: cobra.NoArgs,
	}
	config.AddFlags(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := config.Load(cmd.Flags(), app.environ)
		if err != nil {
			return usageError{err}
		}
		return nodeFailure(serve(cmd.Context(), &c, app.stdout, newLogger(&c, app.stderr)))
	}
	return cmd
}

func newLogger(c *config.Config, w io.Writer) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(c.LogLevel)) // validated by config
	opt := &slog.HandlerOptions{Level: level}
	if c.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, opt))
	}
	return slog.New(slog.NewTextHandler(w, opt))
}

// serve runs a node until ctx is done. It ends in the opposite order of its beginning: first no more
// requests, then no more workers, then the files and the database are closed.
func serve(ctx context.Context, c *config.Config, stdout io.Writer, log *slog.Logger) (err error) {
	token, err := c.Token()
	if err != nil {
		return err
	}
	reg := prometheus.NewRegistry()
	n, err := openNode(ctx, c, reg, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.close()) }()

	// Listen before recovering, so that a wrong address is told at once; answer only afterwards.
	listeners, err := listen(ctx, c.Listen, c.Management, c.Probes)
	if err != nil {
		return err
	}
	api, management, probes := listeners[0], listeners[1], listeners[2]
	// Other nodes may hear of this one: their requests wait in the listener's queue.
	err = n.join(ctx, c, log)
	if err == nil {
		err = n.stores.claim(ctx, log)
	}
	if err == nil {
		err = n.ingest.Recover(ctx)
	}
	if err != nil {
		return errors.Join(err, closeAll(listeners))
	}
	opt := server.Options{
		Token: string(token), Origins: c.Origins(), MinRate: int64(c.MinRate), DrainTimeout: c.Drain, Log: log, Metrics: reg,
		Node: n.id, Forward: n.forward, Notices: n.notices,
	}
	srv := server.New(n.ingest, opt)
	deps := server.ManagementDeps{
		Transfers: n.db,
		Nodes:     n.db,
		Wake:      n.relay.Wake,
		Checks:    n.checks(),
		Health:    n.staging.Health,
		Registry:  reg,
		Version:   version(),
	}
	managed := []served{{management, srv.Management(deps)}}
	if probes != nil {
		managed = append(managed, served{probes, srv.Probes(deps)})
	}

	// The workers outlive the requests, and the management listener outlives both.
	workCtx, stopWork := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWork()
	manageCtx, stopManagement := context.WithCancel(context.WithoutCancel(ctx))
	defer stopManagement()
	workers, running := errgroup.WithContext(workCtx)
	workers.Go(func() error { return n.relay.Run(running) })
	if n.worker != nil {
		workers.Go(func() error { return n.worker.Run(running) })
	}
	workers.Go(func() error { return n.ingest.Run(running) })
	if n.member != nil {
		workers.Go(func() error { return n.member.Run(running) })
	}
	var managing errgroup.Group
	for _, m := range managed {
		managing.Go(func() error { return server.Serve(manageCtx, m.listener, m.handler, opt) })
	}

	serveCtx, stopServing := context.WithCancel(ctx)
	defer stopServing()
	context.AfterFunc(running, stopServing) // a worker that fails ends the node
	context.AfterFunc(serveCtx, srv.Drain)

	if probes != nil {
		fmt.Fprintf(stdout, "probes on http://%s\n", probes.Addr())
	}
	fmt.Fprintf(stdout, "management on http://%s\n", management.Addr())
	fmt.Fprintf(stdout, "listening on http://%s\n", api.Addr())
	err = server.Serve(serveCtx, api, srv.Handler(), opt)
	stopWork()
	err = errors.Join(err, workers.Wait())
	stopManagement()
	return errors.Join(err, managing.Wait())
}

// served is a listener and what answers there.
type served struct {
	listener net.Listener
	handler  http.Handler
}

// listen opens a listener for each address; nil for "". All of them or none.
func listen(ctx context.Context, addresses ...string) ([]net.Listener, error) {
	var config net.ListenConfig
	listeners := make([]net.Listener, len(addresses))
	for i, address := range addresses {
		if address == "" {
			continue
		}
		var err error
		if listeners[i], err = config.Listen(ctx, "tcp", address); err != nil {
			return nil, errors.Join(fmt.Errorf("cannot listen: %w", err), closeAll(listeners[:i]))
		}
	}
	return listeners, nil
}

func closeAll(listeners []net.Listener) error {
	var errs []error
	for _, l := range listeners {
		if l != nil {
			errs = append(errs, l.Close())
		}
	}
	return errors.Join(errs...)
}

// notices are what people at the page should know.
func (n *node) notices() []string {
	var notices []string
	if n.stores.anyDown() {
		notices = append(notices, "The store does not answer. Uploads go on: files are kept on this server, and are moved when the store is back.")
	}
	if n.staging.Health().Full {
		notices = append(notices, "The server's disk is nearly full. New uploads are refused for now; those that are under way go on.")
	}
	return notices
}

// checks are the parts of /readyz.
func (n *node) checks() []server.Check {
	checks := []server.Check{
		{Name: "database", Run: n.db.Ping},
		{Name: "staging", Run: func(context.Context) error {
			h := n.staging.Health()
			switch {
			case !h.Writable:
				return errors.New(h.Reason)
			case h.Full:
				return fmt.Errorf("the disk is nearly full: %d bytes free of %d; new uploads are refused", h.Free, h.Total)
			}
			return nil
		}},
	}
	for _, check := range n.queue.checks {
		check.Advisory = true // uploads go on; their transfers wait
		checks = append(checks, check)
	}
	checks = append(checks, n.stores.checks(true)...) // uploads go on; their transfers wait
	return append(checks, n.viewChecks()...)
}
