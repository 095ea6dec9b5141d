package server

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
)

// maxHeaderBytes bounds a request's headers; beyond it net/http answers 431.
const maxHeaderBytes = 32 << 10

// Serve answers requests that come to l until ctx is done. Then it takes no new ones, gives those
// under way opt.DrainTimeout to finish, cuts the rest, and returns when no handler runs any more. It
// closes l. Bodies and downloads may take as long as they like while they move: their deadlines roll.
func Serve(ctx context.Context, l net.Listener, handler http.Handler, opt Options) error {
	opt = opt.withDefaults()
	var handlers sync.WaitGroup
	srv := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			handlers.Add(1)
			defer handlers.Done()
			handler.ServeHTTP(w, r)
		}),
		ReadHeaderTimeout: opt.HeaderTimeout,
		// For bodies that net/http reads without asking the handler, as it does after an Expect that it
		// does not know. Handlers that read set deadlines of their own.
		ReadTimeout:    opt.Window,
		IdleTimeout:    opt.IdleTimeout,
		MaxHeaderBytes: maxHeaderBytes,
		// "OPTIONS *" is no way around the checks that every request passes.
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     slog.NewLogLogger(opt.Log.Handler(), slog.LevelDebug),
	}
	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), opt.DrainTimeout)
		defer cancel()
		err := srv.Shutdown(drain)
		if err != nil {
			err = errors.Join(err, srv.Close()) // requests that did not finish in time are cut
		}
		stopped <- err
	})
	err := srv.Serve(l)
	if stop() { // ctx is not done: the listener failed
		return errors.Join(err, srv.Close())
	}
	err = <-stopped
	handlers.Wait()
	if errors.Is(err, context.DeadlineExceeded) {
		opt.Log.Warn("some requests were cut because they did not finish while the server stopped", "drain_timeout", opt.DrainTimeout)
		return nil
	}
	return err
}
