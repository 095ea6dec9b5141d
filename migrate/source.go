package migrate

import (
	"context"
	"errors"
	"io"
	"sync"

	"golang.org/x/time/rate"

	"gantry/store"
)

// wholeRead is from which size on a read is a request of its own, bytes: that of a part. Smaller ones are mostly
// those of a driver that copies from the beginning to the end, and would be a request each.
const wholeRead = 4 << 20

// source is an object as content for another store: its ReadAt reads ranges of the object, no faster than the
// limit.
type source struct {
	ctx   context.Context //nolint:containedctx // io.ReaderAt knows none
	from  store.Store
	key   string
	size  int64
	limit *rate.Limiter

	mu     sync.Mutex
	stream io.ReadCloser // open from at on, to the end; nil: none
	at     int64
}

var _ store.Content = (*source)(nil)

// open returns an object as content. The caller closes.
func (m *Migrator) open(ctx context.Context, key string, size int64) *source {
	return &source{ctx: ctx, from: m.from, key: key, size: size, limit: m.limit}
}

// Size is store.Content's.
func (s *source) Size() int64 { return s.size }

// ReadAt is io.ReaderAt's.
func (s *source) ReadAt(p []byte, offset int64) (int, error) {
	rest := max(s.size-offset, 0)
	if int64(len(p)) > rest {
		n, err := s.ReadAt(p[:rest], offset)
		if err == nil {
			err = io.EOF
		}
		return n, err
	}
	if len(p) == 0 {
		return 0, nil
	}
	if len(p) >= wholeRead {
		body, err := s.from.Open(s.ctx, s.key, offset, int64(len(p)))
		if err != nil {
			return 0, err
		}
		n, err := s.fill(p, body)
		return n, errors.Join(err, body.Close())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.next(p, offset)
}

// next reads from the stream, which is put to the offset if it is elsewhere.
func (s *source) next(p []byte, offset int64) (int, error) {
	if s.stream == nil || s.at != offset {
		if err := s.closeStream(); err != nil {
			return 0, err
		}
		stream, err := s.from.Open(s.ctx, s.key, offset, -1)
		if err != nil {
			return 0, err
		}
		s.stream, s.at = stream, offset
	}
	n, err := s.fill(p, s.stream)
	if s.at += int64(n); err != nil {
		err = errors.Join(err, s.closeStream())
	}
	return n, err
}

// fill reads all of p, in steps that the limit lets through.
func (s *source) fill(p []byte, from io.Reader) (n int, err error) {
	for n < len(p) {
		step := len(p) - n
		if s.limit != nil {
			step = min(step, s.limit.Burst())
			if err := s.limit.WaitN(s.ctx, step); err != nil {
				return n, err
			}
		}
		read, err := io.ReadFull(from, p[n:n+step])
		n += read
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

func (s *source) closeStream() error {
	if s.stream == nil {
		return nil
	}
	stream := s.stream
	s.stream = nil
	return stream.Close()
}

// Close ends reading.
func (s *source) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closeStream()
}
