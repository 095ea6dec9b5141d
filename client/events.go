package client

import "time"

// Event tells what Upload or Download is doing. Events come from several goroutines at once, and
// often: a handler must be quick and safe for concurrent use.
type Event struct {
	Kind  EventKind
	Phase Phase         // PhaseChanged
	Bytes int64         // how many more; Moved: fewer when an attempt failed
	Err   error         // Retrying: what went wrong
	What  string        // Retrying: what is tried again
	Delay time.Duration // Retrying: when
}

// EventKind is what an Event is about.
type EventKind uint8

// The kinds of event.
const (
	PhaseChanged EventKind = iota // Phase
	Resumed                       // Bytes were there already, from an earlier attempt
	Hashed                        // Bytes were read and hashed
	Moved                         // Bytes went over the line; negative: they have to go again
	Acknowledged                  // Bytes are safe on the other side
	Retrying                      // an attempt failed: Err, What, Delay
	Instant                       // the server has the content: Bytes need not be sent
)

// Phase is what a file is going through.
type Phase string

// The phases of a file.
const (
	Checking    Phase = "checking"    // being hashed, because the server may have it already
	Uploading   Phase = "uploading"   // chunks are being sent
	Finishing   Phase = "finishing"   // all sent; the server completes, or the hash is awaited
	Downloading Phase = "downloading" // ranges are being fetched
	Done        Phase = "done"
)
