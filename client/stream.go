package client

import (
	"bytes"
	"context"
	"crypto/sha1"
	"errors"
	"hash/crc32"
	"io"

	"golang.org/x/sync/errgroup"

	"gantry/upload"
)

// sendStream sends what can be read once. Each chunk is kept in memory until the server has it: one
// per lane and the one being read.
func (s *session) sendStream(ctx context.Context) (Result, error) {
	first := make([]byte, upload.MinInstantSize)
	n, err := io.ReadFull(s.src.stream, first)
	switch {
	case (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)) && len(s.opt.Metadata) == 0:
		s.emit(Event{Kind: PhaseChanged, Phase: Uploading})
		return s.putWhole(ctx, first[:n])
	case err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
		return Result{}, &LocalError{Op: "read", Path: s.src.name, Err: err}
	}
	s.emit(Event{Kind: PhaseChanged, Phase: Uploading})
	key := newKey()
	up, err := retry(ctx, s.pace, "start", func(ctx context.Context) (Upload, error) {
		return s.c.Init(ctx, InitRequest{
			Name: s.opt.Name, Path: s.opt.Path, ChunkSize: s.opt.ChunkSize, ContentType: s.opt.ContentType,
			Metadata: s.opt.Metadata, Replaces: s.opt.Replaces,
		}, key)
	})
	if err != nil {
		return Result{}, err
	}
	s.id, s.layout = up.ID, upload.Layout{Size: upload.UnknownSize, ChunkSize: up.ChunkSize}
	f, err := s.streamChunks(ctx, io.MultiReader(bytes.NewReader(first[:n]), s.src.stream))
	if err != nil {
		s.cancel(ctx) // nobody can go on with it
		return Result{}, err
	}
	return Result{File: f, BytesSent: s.acked.Load()}, nil
}

// piece is a chunk that was read.
type piece struct {
	index int
	buf   []byte // of the pool
	data  []byte
}

func (s *session) streamChunks(ctx context.Context, r io.Reader) (File, error) {
	if s.layout.ChunkSize < upload.MinChunkSize || s.layout.ChunkSize > upload.MaxChunkSize {
		return File{}, upload.Errorf(upload.Internal, "client.Upload", s.id, "The server's answer has no chunk size.")
	}
	lanes := s.c.opt.Parallel
	free := make(chan []byte, lanes+1) // nil until a buffer is used for the first time
	for range cap(free) {
		free <- nil
	}
	pieces := make(chan piece)
	sum := sha1.New()
	var size int64

	lanesGroup, sending := errgroup.WithContext(ctx)
	var reading errgroup.Group
	reading.Go(func() error {
		defer close(pieces)
		for index := 0; ; index++ {
			p := piece{index: index}
			select {
			case p.buf = <-free:
			case <-sending.Done():
				return nil // the lanes know why
			}
			if p.buf == nil {
				p.buf = make([]byte, s.layout.ChunkSize)
			}
			n, err := io.ReadFull(r, p.buf)
			if n > 0 {
				if index >= upload.MaxChunks {
					return &LocalError{Op: "upload", Path: s.src.name, Err: ErrTooLong}
				}
				p.data = p.buf[:n]
				_, _ = sum.Write(p.data) // a hash never fails
				size += int64(n)
				s.emit(Event{Kind: Hashed, Bytes: int64(n)})
				select {
				case pieces <- p:
				case <-sending.Done():
					return nil
				}
			}
			if err == io.EOF || err == io.ErrUnexpectedEOF {
				return nil
			}
			if err != nil {
				return &LocalError{Op: "read", Path: s.src.name, Err: err}
			}
		}
	})
	for range lanes {
		lanesGroup.Go(func() error {
			for {
				var p piece
				var ok bool
				select {
				case p, ok = <-pieces:
				case <-sending.Done():
					return context.Cause(sending)
				}
				if !ok {
					return nil
				}
				if err := s.sendPiece(sending, p); err != nil {
					return err
				}
				free <- p.buf
			}
		})
	}
	if err := lanesGroup.Wait(); err != nil {
		// The reader is not waited for: a Read of a terminal or a pipe cannot be interrupted. It ends
		// with that Read, and touches nothing that is used again.
		return File{}, err
	}
	if err := reading.Wait(); err != nil { // the lanes ended well because it closed pieces: it has ended
		return File{}, err
	}
	s.emit(Event{Kind: PhaseChanged, Phase: Finishing})
	return s.complete(ctx, new(upload.SHA1(sum.Sum(nil))), &size)
}

func (s *session) sendPiece(ctx context.Context, p piece) error {
	crc := crc32.Checksum(p.data, upload.Castagnoli)
	for mismatches := 0; ; mismatches++ {
		err := s.putChunk(ctx, p.index, crc, int64(len(p.data)), func() io.Reader { return bytes.NewReader(p.data) })
		if !IsDigestMismatch(err) || mismatches == maxDoubts {
			return err
		}
	}
}
