package main

import (
	"encoding/json"
	"io"
	"sync"
	"time"

	"gantry/client"
)

// The events of --json, one object per line. Fields are only ever added.
type (
	fileEvent struct {
		Event        string  `json:"event"` // file_start, file_done, file_skipped
		ID           string  `json:"id,omitempty"`
		Name         string  `json:"name"`
		Size         int64   `json:"size"`
		SHA1         string  `json:"sha1,omitempty"`
		Resumable    bool    `json:"resumable,omitempty"`
		Instant      *bool   `json:"instant,omitempty"`
		BytesSent    *int64  `json:"bytes_sent,omitempty"`
		BytesResumed *int64  `json:"bytes_resumed,omitempty"`
		BytesNotSent *int64  `json:"bytes_not_sent,omitempty"`
		Saved        string  `json:"saved,omitempty"` // get: where the file is
		Seconds      float64 `json:"seconds,omitempty"`
	}
	phaseEvent struct {
		Event string       `json:"event"` // phase
		Name  string       `json:"name"`
		Phase client.Phase `json:"phase"`
	}
	progressEvent struct {
		Event string       `json:"event"` // progress, once a second
		Name  string       `json:"name"`
		Phase client.Phase `json:"phase"`
		Bytes int64        `json:"bytes"`
		Size  int64        `json:"size"` // -1: unknown
	}
	retryEvent struct {
		Event  string  `json:"event"` // retry
		Name   string  `json:"name"`
		What   string  `json:"what"`
		Reason string  `json:"reason"`
		Delay  float64 `json:"delay_seconds"`
	}
	errorEvent struct {
		Event string `json:"event"` // file_error
		Name  string `json:"name"`
		Error string `json:"error"`
		Code  int    `json:"code"` // as the exit code
	}
	summary struct {
		Event        string  `json:"event"` // summary, the last line
		Files        int     `json:"files"` // done, without those skipped and failed
		Failed       int     `json:"failed"`
		Skipped      int     `json:"skipped"`
		Instant      int     `json:"instant"`
		Bytes        int64   `json:"bytes"`
		BytesSent    int64   `json:"bytes_sent"`
		BytesNotSent int64   `json:"bytes_not_sent"`
		Interrupted  bool    `json:"interrupted"`
		Seconds      float64 `json:"seconds"`
	}
)

const progressInterval = time.Second

// events writes NDJSON, or nothing.
type events struct {
	on    bool
	board *board

	mu  sync.Mutex
	out *json.Encoder

	stop    chan struct{}
	ticking sync.WaitGroup
}

func newEvents(w io.Writer, on bool, b *board) *events {
	e := &events{on: on, board: b, out: json.NewEncoder(w), stop: make(chan struct{})}
	e.out.SetEscapeHTML(false)
	if on {
		e.ticking.Go(e.tick)
	}
	return e
}

func (e *events) write(event any) {
	if !e.on {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	_ = e.out.Encode(event) // a reader that has gone is told by SIGPIPE
}

func (e *events) tick() {
	ticker := time.NewTicker(progressInterval)
	defer ticker.Stop()
	for {
		select {
		case <-e.stop:
			return
		case <-ticker.C:
			active, _, _ := e.board.snapshot()
			for _, t := range active {
				e.write(progressEvent{"progress", t.name, t.currentPhase(), t.done(), t.size})
			}
		}
	}
}

func (e *events) close() {
	close(e.stop)
	e.ticking.Wait()
}
