package client

import (
	"cmp"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"gantry/upload"
)

const (
	urlsGoodFor  = 30 * time.Minute // then they are asked for anew; the server's are good for longer
	urlsAtOnce   = 100
	unreachables = 2 * maxDoubts // failures, without a success, after which the store counts as out of reach
)

// noDirectError says that the store does not take chunks from here: the server has to.
type noDirectError struct{ why string }

func (e *noDirectError) Error() string { return "the store cannot be used from here: " + e.why }

// direct is the store's side of a direct upload.
type direct struct {
	fetching sync.Mutex // one at a time asks for URLs, and the others wait for what it gets
	mu       sync.Mutex // of what follows
	urls     map[int]string
	since    time.Time

	reached  atomic.Bool // the store has taken a chunk of this upload
	failures atomic.Int64
}

func newDirect(u *DirectURLs, reached bool) *direct {
	d := &direct{urls: map[int]string{}}
	d.reached.Store(reached)
	d.take(u)
	return d
}

func (d *direct) take(u *DirectURLs) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if time.Since(d.since) > urlsGoodFor {
		clear(d.urls)
		d.since = time.Now()
	}
	for _, one := range u.URLs {
		d.urls[one.Index] = one.URL
	}
}

func (d *direct) known(index int) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if time.Since(d.since) > urlsGoodFor {
		return ""
	}
	return d.urls[index]
}

// drop forgets a URL that was refused.
func (d *direct) drop(index int, address string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.urls[index] == address {
		clear(d.urls) // they are all as old
	}
}

// urlOf returns where a chunk goes.
func (s *session) urlOf(ctx context.Context, index int) (string, error) {
	d := s.direct
	if address := d.known(index); address != "" {
		return address, nil
	}
	d.fetching.Lock()
	defer d.fetching.Unlock()
	if address := d.known(index); address != "" { // another lane has asked meanwhile
		return address, nil
	}
	fresh, err := retry(ctx, s.pace, "addresses", func(ctx context.Context) (DirectURLs, error) {
		return s.c.ChunkURLs(ctx, s.id, index, urlsAtOnce)
	})
	if err != nil {
		return "", err
	}
	d.take(&fresh)
	address := d.known(index)
	if address == "" {
		err = upload.Errorf(upload.Internal, "client.Upload", s.id, "The server's answer has no URL for chunk %d.", index)
	}
	return address, err
}

// sendDirect sends one chunk to the store until it has it. Its digest is not checked on the way: at the end the server
// compares the SHA-1 of the whole.
func (s *session) sendDirect(ctx context.Context, index int) error {
	offset, length := s.layout.Offset(index), s.layout.Length(index)
	for refused := 0; ; refused++ {
		address, err := s.urlOf(ctx, index)
		if hasKind(err, upload.NotOpen) {
			return nil // another process has completed it: finish will tell
		}
		if err != nil {
			return err
		}
		_, err = retry(ctx, s.pace, fmt.Sprintf("chunk %d", index), func(ctx context.Context) (struct{}, error) {
			err := s.c.exchange(ctx, length, func() io.Reader { return io.NewSectionReader(s.src.at, offset, length) }, s.moved,
				func(ctx context.Context, body func() io.ReadCloser) error {
					return s.c.putDirect(ctx, address, body, length)
				})
			return struct{}{}, s.direct.judge(ctx, err)
		})
		switch status := statusOf(err); {
		case err == nil:
			s.direct.reached.Store(true)
			s.acked.Add(length)
			s.pending.Add(-1)
			s.emit(Event{Kind: Acknowledged, Bytes: length})
			return nil
		case status == http.StatusNotFound:
			return nil // the upload has ended in the store: finish will tell
		case status == http.StatusForbidden && refused < maxDoubts:
			s.direct.drop(index, address) // too old, or this machine's clock was set
		case status != 0 && !s.direct.reached.Load():
			return &noDirectError{err.Error()}
		default:
			return err
		}
	}
}

// judge makes a noDirectError of a failure if there were many of them and nothing else.
func (d *direct) judge(ctx context.Context, err error) error {
	if _, local := errors.AsType[*LocalError](err); err == nil || local || ctx.Err() != nil || d.reached.Load() {
		return err
	}
	if status := statusOf(err); status == http.StatusForbidden || status == http.StatusNotFound {
		return err // there are other reasons for these
	}
	if d.failures.Add(1) >= unreachables {
		return &noDirectError{err.Error()}
	}
	return err
}

// putDirect makes one attempt to send a chunk to a store. The URL carries a permission: it is in no error and no log.
func (c *Client) putDirect(ctx context.Context, address string, body func() io.ReadCloser, length int64) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, address, body())
	if err != nil {
		return upload.Errorf(upload.Internal, "client.Upload", "", "The server's answer has a URL that is none.")
	}
	req.ContentLength = length
	req.Header.Set("User-Agent", c.opt.UserAgent)
	resp, err := c.http.Do(req)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		if e, ok := errors.AsType[*url.Error](err); ok {
			e.URL = req.URL.Scheme + "://" + req.URL.Host
		}
		return err
	}
	defer drain(resp.Body)
	if resp.StatusCode/100 == 2 {
		return nil
	}
	var told struct{ Code string } // in all stores' dialects of S3
	_ = xml.NewDecoder(io.LimitReader(resp.Body, 1<<16)).Decode(&told)
	return &Error{
		Op: "PUT to " + req.URL.Host, Status: resp.StatusCode, Title: http.StatusText(resp.StatusCode),
		Detail:     "The store refuses the chunk: " + cmp.Or(told.Code, http.StatusText(resp.StatusCode)),
		RetryAfter: parseRetryAfter(resp.Header.Get("Retry-After"), time.Now()),
	}
}
