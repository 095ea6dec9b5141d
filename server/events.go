package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/labstack/echo/v4"

	"gantry/server/ingest"
	"gantry/upload"
)

// deletedJSON is a file that is not there any more.
type deletedJSON struct {
	ID string `json:"id"`
}

// endedJSON is an upload that is not open any more.
type endedJSON struct {
	ID    string       `json:"id"`
	State upload.State `json:"state"`
}

// events tells a client what happens to its files and uploads, until one of the two goes away, as server-sent events (the HTML
// standard, section 9.2).
func (s *Server) events(c echo.Context) error {
	follower, err := s.uploads.Follow(s.owner(c))
	if err != nil {
		return err
	}
	defer follower.Close()
	// What happens from here on is told. A failure can still be answered with a problem document.
	if _, _, err := follower.Next(c.Request().Context()); err != nil {
		return err
	}
	s.metrics.streams.Inc()
	defer s.metrics.streams.Dec()
	h := c.Response().Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("X-Accel-Buffering", "no") // nginx would keep events until there are some KiB of them
	c.Response().WriteHeader(http.StatusOK)
	stream := eventStream{c: c, conn: http.NewResponseController(c.Response().Writer)}
	if err := stream.send(nil, true, s.metrics); err != nil {
		return err
	}
	return s.tell(c.Request().Context(), follower, &stream)
}

// tell sends what happens. It asks for it: so a client that reads slowly costs no memory, and gets a resync if it missed some.
func (s *Server) tell(ctx context.Context, follower *ingest.Follower, stream *eventStream) error {
	ticker := time.NewTicker(s.opt.EventPause)
	defer ticker.Stop()
	end := time.NewTimer(s.opt.EventLife)
	defer end.Stop()
	for {
		select {
		case <-ctx.Done():
			return upload.Wrap(upload.Canceled, "server.events", "", ctx.Err())
		case <-s.draining:
			return nil
		case <-end.C:
			return nil
		case <-ticker.C:
		}
		events, missed, err := follower.Next(ctx)
		if err != nil && ctx.Err() == nil {
			s.opt.Log.DebugContext(ctx, "cannot see what has happened; trying again", "error", err) // each second, for each client
		}
		if len(events) == 0 && !missed && time.Since(stream.sent) < s.opt.EventBeat {
			continue
		}
		if err := stream.send(events, missed, s.metrics); err != nil {
			return err
		}
	}
}

// eventStream is an answer that goes on.
type eventStream struct {
	c    echo.Context
	conn *http.ResponseController
	sent time.Time // when something was last sent
}

// send writes events, or a comment if there are none: proxies and clients take a silent connection for a dead one.
func (e *eventStream) send(events []ingest.Event, missed bool, m *metrics) error {
	var text []byte
	if missed {
		text = append(text, "event: resync\ndata: {}\n\n"...)
		m.resyncs.Inc()
	}
	for i := range events {
		name, value := viewEvent(&events[i])
		data, err := json.Marshal(value)
		if err != nil {
			return upload.Wrap(upload.Internal, "server.events", "", err)
		}
		text = fmt.Appendf(text, "event: %s\ndata: %s\n\n", name, data)
		m.events.Inc()
	}
	if text == nil {
		text = []byte(":\n\n")
	}
	e.sent = time.Now()
	_, err := e.c.Response().Write(text)
	if err == nil {
		err = e.conn.Flush()
	}
	if err != nil {
		kind := upload.Canceled
		if errors.Is(err, os.ErrDeadlineExceeded) {
			kind = upload.Timeout
		}
		return upload.Wrap(kind, "server.events", "", err)
	}
	return nil
}

// viewEvent is the name of an event and its data.
func viewEvent(e *ingest.Event) (string, any) {
	switch {
	case e.File != nil:
		return "file", viewFile(e.File)
	case e.Deleted != "":
		return "file_deleted", deletedJSON{e.Deleted}
	case e.Upload != nil:
		return "upload", viewUpload(e.Upload)
	}
	return "upload_ended", endedJSON{e.Ended.ID, e.Ended.State}
}
