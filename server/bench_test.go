package server

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"gantry/chunkstore"
	"gantry/server/ingest"
	"gantry/upload"
)

// raw sends the same request over and over on one connection and reads answers of a known length: the
// client's own cost is next to nothing.
func raw(b *testing.B, h http.Handler, request string) {
	l := listen(b)
	serveUntil(b, l, h, Options{})
	conn := dial(b, l.Addr().String())
	_ = conn.SetDeadline(time.Time{})
	send := []byte(request)
	if _, err := conn.Write(send); err != nil {
		b.Fatal(err)
	}
	resp, err := http.ReadResponse(conn.in, nil)
	if err != nil || resp.StatusCode >= 300 {
		b.Fatal(resp, err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	conn.send("%s", request)
	var head []byte
	for { // the length of an answer: all are alike
		line, err := conn.in.ReadBytes('\n')
		if err != nil {
			b.Fatal(err)
		}
		if head = append(head, line...); len(line) == 2 {
			break
		}
	}
	answer := make([]byte, len(head)+int(max(0, resp.ContentLength)))
	if _, err := io.ReadFull(conn.in, answer[len(head):]); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(request)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := conn.Write(send); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(conn.in, answer); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkFront is what the front adds to a small upload and to a chunk: the use cases only read the
// body. "bare" is net/http alone.
func BenchmarkFront(b *testing.B) {
	buf := make([]byte, 256<<10)
	read := func(r io.Reader, n int64) error {
		for n > 0 {
			k, err := r.Read(buf[:min(n, int64(len(buf)))])
			if n -= int64(k); err != nil && n > 0 {
				return err
			}
		}
		return nil
	}
	st := &stub{
		putChunk: func(_ context.Context, _ string, _ int, body chunkstore.Body) error { return read(body, body.Length) },
		putFile: func(r ingest.FileRequest, body chunkstore.Body) (upload.File, error) {
			return upload.File{ID: "06gvl5278sjtl3ogo3ciig6drk", Name: r.Name, Size: body.Length}, read(body, body.Length)
		},
	}
	bare := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = read(r.Body, r.ContentLength)
		w.WriteHeader(http.StatusNoContent)
	})
	gantry := New(st, Options{}).Handler()
	body := string(random(100_000))
	chunk := "PUT /v1/uploads/n-00000000000000000000000000/chunks/1 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n" + body
	b.Run("chunk", func(b *testing.B) { raw(b, gantry, chunk) })
	b.Run("bare", func(b *testing.B) { raw(b, bare, chunk) })
	b.Run("file", func(b *testing.B) {
		raw(b, gantry, fmt.Sprintf("POST /v1/files?name=report.pdf HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/pdf\r\nContent-Length: %d\r\n\r\n%s", len(body), body))
	})
	form, kind := form([2]string{"report.pdf", body})
	st.putFile = func(r ingest.FileRequest, body chunkstore.Body) (upload.File, error) {
		_, err := io.CopyBuffer(io.Discard, struct{ io.Reader }{body}, buf)
		return upload.File{ID: "f", Name: r.Name}, err
	}
	b.Run("form", func(b *testing.B) {
		raw(b, gantry, fmt.Sprintf("POST /v1/files HTTP/1.1\r\nHost: localhost\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s", kind, len(form), form))
	})
}
