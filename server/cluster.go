package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"

	"github.com/labstack/echo/v4"

	"gantry/server/forward"
	"gantry/upload"
)

// keyOrigin is where a request's context has the node that passed it on.
const keyOrigin = "origin"

// passedOn notes that another node has passed the request on: that node has looked who the client is.
func (f *front) passedOn(c echo.Context, from *forward.Origin) {
	if from == nil {
		return
	}
	c.Set(keyOrigin, from)
	w := c.Response()
	w.Before(func() { w.Header().Set(f.forward.Answer(from, w.Status)) })
}

func originOf(c echo.Context) *forward.Origin {
	from, _ := c.Get(keyOrigin).(*forward.Origin)
	return from
}

// clientOf is the address that a request comes from in the first place.
func clientOf(c echo.Context) string {
	if from := originOf(c); from != nil {
		return from.Client
	}
	return c.Request().RemoteAddr
}

// owner is on whose behalf the request is.
func (s *Server) owner(c echo.Context) string {
	if from := originOf(c); from != nil {
		return from.Owner
	}
	return s.opt.Owner
}

// atOwner makes a handler of calls on an upload answer them where the upload is: its id names the node.
func (s *Server) atOwner(here echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		node, ok := upload.ParseUploadID(c.Param("id"))
		if !ok || !s.isElsewhere(c, node) {
			return here(c)
		}
		return s.pass(c, node)
	}
}

// isElsewhere reports whether the request has to be passed on to node. One that was passed on already
// never is again, so that there are no loops whatever the nodes think of each other.
func (s *Server) isElsewhere(c echo.Context, node string) bool {
	return s.opt.Forward != nil && node != s.opt.Node && originOf(c) == nil
}

// pass has another node answer the request, whose body must not have been read.
func (s *Server) pass(c echo.Context, node string) error {
	w := c.Response()
	to := forward.Request{Node: node, Owner: s.owner(c), ID: w.Header().Get(headerRequestID)}
	if in := bodyOf(c); in != nil {
		to.Body, to.Length, to.Abort = in, c.Request().ContentLength, in.abort
	}
	return s.send(c, to)
}

// passJSON is pass for a request whose JSON has been read; r is what it said.
func (s *Server) passJSON(c echo.Context, node string, r any) error {
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return s.send(c, forward.Request{
		Node: node, Owner: s.owner(c), ID: c.Response().Header().Get(headerRequestID),
		Body: bytes.NewReader(text), Length: int64(len(text)),
	})
}

func (s *Server) send(c echo.Context, to forward.Request) error {
	w := c.Response()
	ours := maps.Clone(w.Header())
	maps.DeleteFunc(w.Header(), func(name string, _ []string) bool { return !isCrossSite(name) }) // the other node sets the others
	err := s.opt.Forward.Send(w, c.Request(), to)
	if err != nil && !w.Committed {
		maps.Copy(w.Header(), ours)
	}
	s.metrics.forwarded(err)
	if errors.Is(err, upload.Gone) {
		return withState{err, upload.Expired} // with its node
	}
	return err
}
