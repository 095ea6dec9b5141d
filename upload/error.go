package upload

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
)

// Kind says what went wrong in a way that callers can act upon. Kinds are themselves errors, so
// errors.Is(err, upload.NotFound) works on any error that wraps one. The list only ever grows at
// its end.
type Kind uint8

// The kinds of error. The comment says what the caller should do.
const (
	Internal            Kind = iota // a defect or an unclassified failure: report it
	Invalid                         // the request is malformed: correct it
	InvalidName                     // name, path or metadata is not acceptable: choose another
	InvalidSize                     // negative, overflowing or inconsistent size: correct it
	InvalidIndex                    // no such chunk in this upload: correct the index
	ShortBody                       // fewer bytes than announced: send the chunk again, whole
	LongBody                        // more bytes than the chunk holds: cut chunks as init said
	TooLarge                        // over the server's limit for one file or one request
	LengthRequired                  // Content-Length is missing
	UnsupportedEncoding             // Content-Encoding is not accepted: send the bytes as they are
	UnsupportedType                 // the request's media type is not accepted
	Unauthenticated                 // no valid credentials
	Forbidden                       // a request from a foreign origin or host
	NotFound                        // no such thing, or not yours
	Gone                            // it existed: cancelled, expired, rejected or lost
	NotOpen                         // the upload takes no more chunks: it is complete or completing
	ChunkConflict                   // other bytes are already there for this chunk: start a new upload
	Incomplete                      // chunks are missing: send those listed, then complete again
	DigestMismatch                  // the bytes are not those that were announced
	KeyReused                       // the Idempotency-Key was used with another request
	BadRange                        // the requested range lies outside the content
	NoRoom                          // the disk has no room: try later or elsewhere
	Unavailable                     // temporarily not possible: try again after a while
	TooMany                         // too many requests: slow down
	Conflict                        // the thing changed meanwhile: look at it again
	Canceled                        // the caller went away
	Timeout                         // the request body came too slowly
	MethodNotAllowed                // the address exists, the method does not
	PreconditionFailed              // the content is not the version that was asked for: fetch it anew
	DirectUpload                    // the bytes of this upload go to the store: PUT them to its URLs
	kindCount
)

var kindNames = [...]string{
	Internal: "internal", Invalid: "invalid_request", InvalidName: "invalid_name", InvalidSize: "invalid_size",
	InvalidIndex: "invalid_chunk_index", ShortBody: "short_body", LongBody: "long_body", TooLarge: "too_large",
	LengthRequired: "length_required", UnsupportedEncoding: "unsupported_encoding", UnsupportedType: "unsupported_media_type",
	Unauthenticated: "unauthenticated", Forbidden: "forbidden", NotFound: "not_found", Gone: "gone", NotOpen: "not_open",
	ChunkConflict: "chunk_conflict", Incomplete: "incomplete", DigestMismatch: "digest_mismatch", KeyReused: "idempotency_key_reused",
	BadRange: "range_not_satisfiable", NoRoom: "insufficient_storage", Unavailable: "unavailable", TooMany: "too_many_requests",
	Conflict: "conflict", Canceled: "canceled", Timeout: "timeout", MethodNotAllowed: "method_not_allowed",
	PreconditionFailed: "precondition_failed", DirectUpload: "direct_upload",
}

// Kinds lists every kind, for tables that must cover them all.
func Kinds() []Kind {
	all := make([]Kind, kindCount)
	for i := range all {
		all[i] = Kind(i)
	}
	return all
}

// Code is the stable name of the kind, as it appears in the API's error documents.
func (k Kind) Code() string {
	if k < kindCount {
		return kindNames[k]
	}
	return kindNames[Internal]
}

// Error makes a Kind usable as the target of errors.Is.
func (k Kind) Error() string { return strings.ReplaceAll(k.Code(), "_", " ") }

// Error is a failure with what a caller needs to go on.
type Error struct {
	Op     string // what was being done, "chunkstore.WriteChunk"
	Kind   Kind
	ID     string  // the upload, file, blob or transfer it happened to
	Detail string  // a sentence for the user: what is wrong and what to do; never a secret or a path
	Ranges []Range // Incomplete: the missing chunks
	Want   string  // DigestMismatch: the digest that was announced
	Got    string  // DigestMismatch: the digest of the bytes
	Err    error   // the cause; logged, not shown
}

// Errorf makes an Error with a formatted detail for the user.
func Errorf(kind Kind, op, id, format string, args ...any) *Error {
	return &Error{Op: op, Kind: kind, ID: id, Detail: fmt.Sprintf(format, args...)}
}

// Wrap gives err a kind and an operation. It returns nil for nil. If err is an Error already, its
// kind and what it tells the user are kept: the outermost Error says it all.
func Wrap(kind Kind, op, id string, err error) error {
	if err == nil {
		return nil
	}
	outer := &Error{Op: op, Kind: kind, ID: id, Err: err}
	if inner, ok := errors.AsType[*Error](err); ok {
		outer.Kind, outer.Detail = inner.Kind, inner.Detail
		outer.Ranges, outer.Want, outer.Got = inner.Ranges, inner.Want, inner.Got
	} else if known, ok := errors.AsType[Kind](err); ok {
		outer.Kind = known
	}
	return outer
}

func (e *Error) Error() string {
	var b strings.Builder
	if e.Op != "" {
		b.WriteString(e.Op + ": ")
	}
	if e.ID != "" {
		b.WriteString(e.ID + ": ")
	}
	if _, wraps := errors.AsType[*Error](e.Err); wraps { // which says the rest
		return b.String() + e.Err.Error()
	}
	b.WriteString(cmp.Or(e.Detail, e.Kind.Error()))
	if e.Err != nil {
		b.WriteString(": " + e.Err.Error())
	}
	return b.String()
}

// Unwrap gives errors.Is and errors.As both the cause and the kind.
func (e *Error) Unwrap() []error {
	if e.Err == nil {
		return []error{e.Kind}
	}
	return []error{e.Kind, e.Err}
}

// KindOf returns the outermost kind in err's chain, Internal if there is none.
func KindOf(err error) Kind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	if k, ok := errors.AsType[Kind](err); ok {
		return k
	}
	return Internal
}
