package store

import (
	"context"
	"errors"
	"io"
	"strings"

	"gantry/upload"
)

// Exact returns the body of an answer that has to have length bytes: one that ends early is upload.Unavailable, and no
// shorter object. What else goes wrong in reading is classified by the driver. op names the driver's reading.
func Exact(op, key string, body io.ReadCloser, length int64, classify func(op, key string, err error) error) io.ReadCloser {
	return &exact{ReadCloser: body, op: op, key: key, left: length, classify: classify}
}

type exact struct {
	io.ReadCloser
	op, key  string
	left     int64
	classify func(op, key string, err error) error
}

func (e *exact) Read(p []byte) (int, error) {
	n, err := e.ReadCloser.Read(p)
	e.left -= int64(n)
	switch {
	case errors.Is(err, io.EOF) && e.left > 0:
		err = upload.Errorf(upload.Unavailable, e.op, e.key, "The store ended %d bytes early.", e.left)
	case err != nil && !errors.Is(err, io.EOF):
		err = e.classify(e.op, e.key, err)
	}
	return n, err
}

// AtEnd is what Open returns where a store says that it has no such range, and where nothing is asked for, which no request
// can do: nothing, if there is nothing. A range that the object has is upload.Unavailable, lest a file end early.
func AtEnd(ctx context.Context, s Store, op, key string, offset, length int64) (io.ReadCloser, error) {
	switch size, err := s.Size(ctx, key); {
	case err != nil:
		return nil, err
	case offset > size:
		return nil, upload.Errorf(upload.BadRange, op, key, "The object has %d bytes.", size)
	case offset < size && length != 0:
		return nil, upload.Errorf(upload.Unavailable, op, key, "The store refuses a range that the object has.")
	}
	return io.NopCloser(strings.NewReader("")), nil
}
