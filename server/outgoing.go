package server

import (
	"net/http"
	"time"
)

// outgoing is a request's answer on its way out. Its write deadline rolls: a receiver may be slow, but
// one that takes nothing for the stall time is cut, and what was made for it is given back. net/http
// takes the deadline back when the request has ended.
type outgoing struct {
	http.ResponseWriter
	conn  *http.ResponseController
	stall time.Duration
	since time.Time // when the deadline was last set
}

func newOutgoing(w http.ResponseWriter, stall time.Duration) *outgoing {
	return &outgoing{ResponseWriter: w, conn: http.NewResponseController(w), stall: stall}
}

// Unwrap lets http.ResponseController reach the connection.
func (o *outgoing) Unwrap() http.ResponseWriter { return o.ResponseWriter }

// prolong sets when a write must have returned. Where the connection cannot do that (a test's
// recorder) there is no receiver to wait for either.
func (o *outgoing) prolong() {
	if now := time.Now(); now.Sub(o.since) > o.stall/64 {
		_ = o.conn.SetWriteDeadline(now.Add(o.stall))
		o.since = now
	}
}

// WriteHeader is part of http.ResponseWriter.
func (o *outgoing) WriteHeader(status int) {
	o.prolong()
	o.ResponseWriter.WriteHeader(status)
}

// Write is part of http.ResponseWriter. A long p is written in pieces: the stall time is for each of
// them, not for all of a listing.
func (o *outgoing) Write(p []byte) (n int, err error) {
	for {
		o.prolong()
		m, err := o.ResponseWriter.Write(p[n:min(len(p), n+sendBuffer)])
		if n += m; err != nil || n == len(p) {
			return n, err
		}
	}
}
