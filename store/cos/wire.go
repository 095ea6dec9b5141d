package cos

import (
	"bytes"
	"cmp"
	"context"
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"time"

	"gantry/upload"
)

// wire carries the SDK's requests, and does what the SDK does not: it gives up connections on which nothing moves, which
// would hold a part until the system notices that their other end is gone, and finds the error in an answer that began as a success.
type wire struct {
	inner    http.RoundTripper
	patience time.Duration
}

func newWire(opt *Options) *wire {
	w := &wire{opt.Client, cmp.Or(opt.Patience, time.Minute)}
	if w.inner == nil {
		w.inner = &http.Transport{
			Proxy: http.ProxyFromEnvironment, IdleConnTimeout: time.Minute,
			MaxIdleConnsPerHost: 2 * max(opt.Parts, 4), // net/http keeps two, and would connect anew for most parts
		}
	}
	return w
}

// stalled is why a request was given up.
func stalled() error {
	return upload.Errorf(upload.Timeout, "cos", "", "Nothing has moved between here and the store for too long.")
}

// RoundTrip sends one request.
func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(r.Context())
	watch := &watch{w.patience, time.AfterFunc(w.patience, func() { cancel(stalled()) })}
	end := func() {
		watch.timer.Stop()
		cancel(nil)
	}
	sent := r.WithContext(ctx)
	if r.Body != nil && r.Body != http.NoBody {
		sent.Body = &watched{ReadCloser: r.Body, watch: watch}
	}
	resp, err := w.inner.RoundTrip(sent)
	if err != nil {
		defer end()
		return nil, cmp.Or(cause(ctx), err)
	}
	watch.timer.Stop()
	resp.Body = &watched{ReadCloser: resp.Body, watch: watch, ctx: ctx, end: end}
	if r.Method == http.MethodPost && r.URL.Query().Has("uploadId") && resp.StatusCode == http.StatusOK {
		return completed(resp)
	}
	return resp, nil
}

// cause is why this package ended a request; nil if it did not.
func cause(ctx context.Context) error {
	if err := context.Cause(ctx); errors.Is(err, upload.Timeout) {
		return err
	}
	return nil
}

// watch runs while something is awaited.
type watch struct {
	patience time.Duration
	timer    *time.Timer
}

// watched is a body whose every piece starts the watch anew.
type watched struct {
	io.ReadCloser
	watch *watch
	ctx   context.Context //nolint:containedctx // of an answer's body: net/http ties the body to it too
	end   func()
}

func (b *watched) Read(p []byte) (int, error) {
	b.watch.timer.Reset(b.watch.patience)
	n, err := b.ReadCloser.Read(p)
	if b.end == nil {
		return n, err // of a request: what is awaited next is that it has gone, or the answer
	}
	b.watch.timer.Stop() // whoever reads an answer may take his time
	if err != nil && !errors.Is(err, io.EOF) {
		err = cmp.Or(cause(b.ctx), err)
	}
	return n, err
}

func (b *watched) Close() error {
	err := b.ReadCloser.Close()
	if b.end != nil {
		b.end()
	}
	return err
}

// completed reads the answer to Complete. COS begins it with 200 while it puts the parts together, keeps the connection
// alive with spaces, and says in the body how it ended. The SDK notices an error there, but loses its code.
// https://www.tencentcloud.com/document/product/436/7742 (Complete Multipart Upload)
func completed(resp *http.Response) (*http.Response, error) {
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	resp.Body.Close()
	if err != nil {
		return nil, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	for d := xml.NewDecoder(bytes.NewReader(body)); ; {
		token, err := d.Token()
		if err != nil {
			return resp, nil
		}
		if start, ok := token.(xml.StartElement); ok {
			if start.Name.Local == "Error" {
				resp.StatusCode = http.StatusInternalServerError // the code in the body says more
			}
			return resp, nil
		}
	}
}
