package server

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"gantry/server/forward"
	"gantry/upload"
)

const headerRequestID = "X-Request-Id"

// Header values that every answer carries. They are shared: nobody changes them in place.
var (
	valueNosniff    = []string{"nosniff"}
	valueNoReferrer = []string{"no-referrer"}
	valueDeny       = []string{"DENY"}
	valueSameOrigin = []string{"same-origin"}
	valueNoStore    = []string{"no-store"}
	valueNothing    = []string{"default-src 'none'; frame-ancestors 'none'"}
	valueClose      = []string{"close"}
)

// front is what happens to every request before and after its handler.
type front struct {
	log     *slog.Logger
	metrics *metrics
	pace    pace
	stall   time.Duration // how long the receiver of an answer may take nothing; 0: forever

	forward      *forward.Forwarder // admits what other nodes pass on; nil: there are none
	token        *[sha256.Size]byte // of the token that /v1/ needs; nil: none
	loopbackOnly bool               // answer only requests for a loopback name
	crossOrigin  *http.CrossOriginProtection
	origins      []string // of other sites' pages that may use the API
}

// echo returns a router that passes every request through around, also those for unknown routes.
func (f *front) echo() *echo.Echo {
	e := echo.New()
	e.HideBanner, e.HidePort = true, true
	e.HTTPErrorHandler = func(err error, c echo.Context) { f.fail(c, err) }
	e.Use(f.around)
	return e
}

// around gives a request its id and its answer the headers that all have, lets it through or not,
// turns errors and panics into problem documents, and counts.
//
// It is one function and not a chain, because at ten thousand small uploads a second chains cost.
func (f *front) around(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		start := time.Now()
		r, w := c.Request(), c.Response()
		if f.stall > 0 {
			w.Writer = newOutgoing(w.Writer, f.stall)
		}
		h := w.Header()
		h[headerRequestID] = []string{requestID(r, start)}
		h["X-Content-Type-Options"] = valueNosniff
		h["Referrer-Policy"] = valueNoReferrer
		h["X-Frame-Options"] = valueDeny
		h["Cross-Origin-Resource-Policy"] = valueSameOrigin
		h["Cache-Control"] = valueNoStore
		h["Content-Security-Policy"] = valueNothing
		if len(r.TransferEncoding) > 0 {
			// A proxy in front might see the end of this message elsewhere (request smuggling by
			// Transfer-Encoding beside Content-Length), so nothing more is read from the connection.
			h["Connection"] = valueClose
		}
		in := f.receive(c, start)
		err := in.cause(f.call(c, next))
		cut := err != nil && f.fail(c, err)
		if in != nil {
			in.finish()
		}
		f.metrics.observe(c, kindOf(err), start)
		if f.log.Enabled(r.Context(), slog.LevelDebug) {
			f.log.LogAttrs(r.Context(), slog.LevelDebug, "request", slog.String("method", r.Method), slog.String("path", r.URL.Path),
				slog.Int("status", w.Status), slog.String("client", clientOf(c)), slog.Duration("duration", time.Since(start)), slog.String("request_id", h.Get(headerRequestID)))
		}
		if cut {
			panic(http.ErrAbortHandler) // net/http's way of cutting a connection
		}
		return nil
	}
}

// call runs the handler if the request may pass. A panic becomes an error.
func (f *front) call(c echo.Context, next echo.HandlerFunc) (err error) {
	defer func() {
		switch p := recover(); p {
		case nil:
		case http.ErrAbortHandler: // an answer that was passed on broke off
			err = &upload.Error{Op: "server.call", Kind: upload.Unavailable, Err: http.ErrAbortHandler}
		default:
			err = &upload.Error{Op: "server.call", Kind: upload.Internal, Err: fmt.Errorf("panic: %v\n%s", p, debug.Stack())}
		}
	}()
	answered, err := f.admit(c)
	if answered || err != nil {
		return err
	}
	return next(c)
}

// admit decides whether a request may pass. answered: it was one for permission, and has its answer.
func (f *front) admit(c echo.Context) (answered bool, err error) {
	r := c.Request()
	if f.forward != nil {
		if from, err := f.forward.Admit(r); from != nil || err != nil {
			f.passedOn(c, from)
			return false, err
		}
	}
	if f.loopbackOnly && !isLoopbackHost(r.Host) {
		// A foreign site whose name was made to point here (DNS rebinding) asks for its own name.
		return false, upload.Errorf(upload.Forbidden, "", "", "Without a login this server answers only to localhost and loopback addresses. Set a token to reach it by other names.")
	}
	if f.crossSite(c) {
		return true, nil
	}
	if f.crossOrigin != nil {
		if err := f.crossOrigin.Check(r); err != nil {
			return false, &upload.Error{Kind: upload.Forbidden, Detail: "Requests from pages of other sites are not accepted. Use the server's own page, or a program.", Err: err}
		}
	}
	if f.token != nil && strings.HasPrefix(c.Path(), "/v1/") && !f.authenticated(r) {
		return false, upload.Unauthenticated
	}
	return false, nil
}

// authenticated compares hashes, so that the time it takes tells neither the token nor its length.
func (f *front) authenticated(r *http.Request) bool {
	scheme, token, found := strings.Cut(r.Header.Get("Authorization"), " ")
	if !found || !strings.EqualFold(scheme, "Bearer") {
		return false
	}
	sum := sha256.Sum256([]byte(strings.TrimSpace(token)))
	return subtle.ConstantTimeCompare(sum[:], f.token[:]) == 1
}

// isLoopbackHost reports whether a Host header names this machine and cannot name anything else.
func isLoopbackHost(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if strings.EqualFold(host, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}

// requestID takes over a sane X-Request-Id, so that a request can be followed through proxies, or
// makes one.
func requestID(r *http.Request, now time.Time) string {
	if given := r.Header[headerRequestID]; len(given) == 1 && isRequestID(given[0]) {
		return given[0]
	}
	return upload.NewID(now)
}

func isRequestID(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_', c == '.':
		default:
			return false
		}
	}
	return s != "" && len(s) <= 64
}
