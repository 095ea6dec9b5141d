package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"gantry/upload"
)

// Error is a refusal by the server. errors.Is finds the upload.Kind that its code stands for.
type Error struct {
	Op         string // "PUT /v1/uploads/…"
	Status     int    // HTTP status
	Code       string // stable: see upload.Kind
	Title      string
	Detail     string // a sentence for the user
	RequestID  string
	RetryAfter time.Duration  // 0: the server does not say
	Missing    []upload.Range // incomplete: the chunks to send
	Expected   string         // digest_mismatch: what was announced
	Actual     string         // digest_mismatch: what arrived
	State      upload.State   // gone: how the upload ended
	Location   string         // of a redirect that was not followed
}

func (e *Error) Error() string {
	text := e.Detail
	if text == "" {
		text = e.Title
	}
	if text == "" {
		text = http.StatusText(e.Status)
	}
	text = fmt.Sprintf("%s (%d", strings.TrimRight(text, "."), e.Status)
	if e.Code != "" {
		text += " " + e.Code
	}
	if e.RequestID != "" {
		text += ", request " + e.RequestID
	}
	return text + ")"
}

// Unwrap gives errors.Is the kind that the code stands for, if it is a known one.
func (e *Error) Unwrap() error {
	for _, kind := range upload.Kinds() {
		if kind.Code() == e.Code {
			return kind
		}
	}
	return nil
}

// LocalError is a failure on this side: a file that cannot be read or written.
type LocalError struct {
	Op   string // "read", "write" …
	Path string
	Err  error
}

func (e *LocalError) Error() string {
	if path, ok := errors.AsType[*fs.PathError](e.Err); ok {
		return fmt.Sprintf("cannot %s %s: %v", e.Op, e.Path, path.Err) // the path once is enough
	}
	if e.Path == "" {
		return fmt.Sprintf("cannot %s: %v", e.Op, e.Err)
	}
	return fmt.Sprintf("cannot %s %s: %v", e.Op, e.Path, e.Err)
}

// Unwrap returns the cause.
func (e *LocalError) Unwrap() error { return e.Err }

// Conditions on this side. They are wrapped in a *LocalError.
var (
	// ErrChanged means that a file was written to while it was being uploaded.
	ErrChanged = errors.New("the file changed while it was being uploaded; upload it again when it is finished")
	// ErrExists means that a download would overwrite a file.
	ErrExists = errors.New("there is such a file already")
	// ErrTooLong means that a stream has more bytes than the most chunks there can be.
	ErrTooLong = errors.New("the stream is longer than the chunk size allows; choose larger chunks")
	// ErrCorrupt means that a download's bytes are not those that the server has on record.
	ErrCorrupt = errors.New("the bytes received do not have the file's SHA-1")
)

// errStalled ends a request in which nothing moved for too long.
var errStalled = errors.New("no data for too long")

// answerError is a success whose body could not be read: cut off, or not JSON.
type answerError struct {
	err       error
	requestID string
}

func (e *answerError) Error() string { return "the server's answer cannot be read: " + e.err.Error() }
func (e *answerError) Unwrap() error { return e.err }

// problem is an RFC 9457 document as the server writes it.
type problem struct {
	Title     string         `json:"title"`
	Detail    string         `json:"detail"`
	Code      string         `json:"code"`
	RequestID string         `json:"request_id"`
	Missing   []upload.Range `json:"missing"`
	Expected  string         `json:"expected"`
	Actual    string         `json:"actual"`
	State     upload.State   `json:"state"`
}

// parseError makes an Error of an answer that is no success. It reads at most 1 MiB of it: a list
// of missing chunks is far shorter.
func parseError(op string, resp *http.Response) *Error {
	e := &Error{
		Op: op, Status: resp.StatusCode, Title: http.StatusText(resp.StatusCode),
		RequestID:  resp.Header.Get("X-Request-Id"),
		RetryAfter: parseRetryAfter(resp.Header.Get("Retry-After"), time.Now()),
		Location:   resp.Header.Get("Location"),
	}
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20)) // half a document is better than none
	mediaType, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	var p problem
	if strings.HasSuffix(mediaType, "json") && json.Unmarshal(body, &p) == nil {
		e.Code, e.Detail, e.Missing, e.Expected, e.Actual, e.State = p.Code, p.Detail, p.Missing, p.Expected, p.Actual, p.State
		if p.Title != "" {
			e.Title = p.Title
		}
		if p.RequestID != "" {
			e.RequestID = p.RequestID
		}
	} else if mediaType == "text/plain" {
		line, _, _ := strings.Cut(strings.TrimSpace(string(body)), "\n")
		e.Detail = line[:min(len(line), 200)]
	}
	if resp.StatusCode/100 == 3 && e.Detail == "" {
		e.Detail = "The server is at another address: " + e.Location
	}
	return e
}

// parseRetryAfter reads seconds or an HTTP date; 0 for anything else, and for the past.
func parseRetryAfter(value string, now time.Time) time.Duration {
	if seconds, err := strconv.Atoi(value); err == nil {
		return max(time.Duration(min(seconds, 1<<30))*time.Second, 0)
	}
	if at, err := http.ParseTime(value); err == nil {
		return max(at.Sub(now), 0)
	}
	return 0
}

func hasKind(err error, kind upload.Kind) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Code == kind.Code()
}

func statusOf(err error) int {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Status
	}
	return 0
}

// IsUnauthenticated reports whether the server wants (other) credentials.
func IsUnauthenticated(err error) bool { return statusOf(err) == http.StatusUnauthorized }

// IsForbidden reports whether the server refuses these credentials or this origin.
func IsForbidden(err error) bool { return statusOf(err) == http.StatusForbidden }

// IsNotFound reports whether there is no such thing, or it is not ours.
func IsNotFound(err error) bool { return statusOf(err) == http.StatusNotFound }

// IsGone reports whether the thing existed and was ended.
func IsGone(err error) bool { return statusOf(err) == http.StatusGone }

// IsIncomplete reports whether an upload cannot be completed yet, and which chunks are missing.
func IsIncomplete(err error) ([]upload.Range, bool) {
	if e, ok := errors.AsType[*Error](err); ok && e.Code == upload.Incomplete.Code() {
		return e.Missing, true
	}
	return nil, false
}

// IsDigestMismatch reports whether the bytes that arrived are not those announced.
func IsDigestMismatch(err error) bool { return hasKind(err, upload.DigestMismatch) }

// RetryAfter is how long the server asks to wait, 0 if it does not.
func RetryAfter(err error) time.Duration {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.RetryAfter
	}
	return 0
}

// IsTemporary reports whether the same call may succeed later: the server is busy, away or cannot
// be reached.
func IsTemporary(err error) bool { return classify(err, true) != permanent }

// class is what trying again can do about a failure.
type class uint8

const (
	permanent class = iota // nothing
	doubtful               // it may: a few times
	temporary              // it will, sooner or later
)

// classify decides whether to try again. reached says whether the server has ever answered: a wrong
// address is told at once, a line that broke is waited for.
func classify(err error, reached bool) class {
	if e, ok := errors.AsType[*Error](err); ok {
		return classifyStatus(e)
	}
	if _, ok := errors.AsType[*LocalError](err); ok {
		return permanent
	}
	if errors.Is(err, errStalled) {
		return temporary
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) && !isNetTimeout(err) {
		return permanent
	}
	if _, ok := errors.AsType[*upload.Error](err); ok {
		return permanent
	}
	if isCertificateError(err) {
		return permanent
	}
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		if dns.IsNotFound && !reached {
			return permanent
		}
		return temporary
	}
	if _, ok := errors.AsType[*answerError](err); ok {
		return doubtful
	}
	if n, ok := errors.AsType[net.Error](err); ok {
		// A bare Errno is a net.Error too, and that of a disk: ENOSPC on standard output.
		if _, errno := n.(syscall.Errno); !errno {
			return temporary
		}
	}
	for _, broken := range []error{io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE, syscall.ECONNREFUSED} {
		if errors.Is(err, broken) {
			return temporary
		}
	}
	if _, ok := errors.AsType[*url.Error](err); ok {
		return temporary // net/http has errors of its own for a connection that broke
	}
	return permanent
}

func classifyStatus(e *Error) class {
	switch e.Status {
	case http.StatusTooManyRequests, http.StatusRequestTimeout, http.StatusTooEarly, http.StatusLocked,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return temporary
	case http.StatusInsufficientStorage:
		if e.RetryAfter > 0 {
			return temporary // the disk drains; without a time it is a quota
		}
	case http.StatusInternalServerError:
		return doubtful
	}
	switch e.Code {
	case upload.ShortBody.Code():
		return doubtful // the body was cut on its way
	case upload.Unavailable.Code(), upload.Timeout.Code(), upload.Canceled.Code():
		return temporary
	}
	return permanent
}

func isNetTimeout(err error) bool {
	n, ok := errors.AsType[net.Error](err)
	return ok && n.Timeout()
}

func isCertificateError(err error) bool {
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return true
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return true
	}
	_, ok := errors.AsType[x509.UnknownAuthorityError](err)
	return ok || strings.Contains(err.Error(), "server gave HTTP response to HTTPS client")
}

// Reason says in a few words why a call failed, for "… — trying again in 2 s".
func Reason(err error) string {
	if e, ok := errors.AsType[*Error](err); ok {
		if e.Detail != "" {
			return strings.TrimRight(e.Detail, ".")
		}
		return fmt.Sprintf("the server answered %d %s", e.Status, strings.ToLower(e.Title))
	}
	switch {
	case errors.Is(err, errStalled):
		return "no data for too long"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, net.ErrClosed):
		return "connection broken"
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return "connection closed"
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		return "no network"
	}
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		return "cannot find " + dns.Name
	}
	if isNetTimeout(err) {
		return "connection timed out"
	}
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err.Error()
	}
	return err.Error()
}
