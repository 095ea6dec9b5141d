package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync/atomic"

	"gantry/upload"
)

// buffer is the content of everything that is sent. It is made once: a load generator that shares the
// machine with the server must cost next to nothing.
var buffer = func() []byte {
	b := make([]byte, 64<<20)
	_, _ = rand.NewChaCha8([32]byte{'g', 'a', 'n', 't', 'r', 'y'}).Read(b)
	return b
}()

var stampCount atomic.Uint64

// content is size bytes in pieces of the buffer, unlike all content made before: it begins with a number.
func content(size int64) [][]byte {
	stamp := binary.BigEndian.AppendUint64(nil, stampCount.Add(1))
	stamp = stamp[:min(int64(len(stamp)), size)]
	pieces := [][]byte{stamp}
	for at := int64(len(stamp)); at < size; {
		piece := buffer[at%int64(len(buffer)):]
		piece = piece[:min(int64(len(piece)), size-at)]
		pieces, at = append(pieces, piece), at+int64(len(piece))
	}
	return pieces
}

// conn is one keep-alive connection that sends a request at a time.
type conn struct {
	c    net.Conn
	r    *bufio.Reader
	host string
	head []byte
}

func dial(ctx context.Context, addr string) (*conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return &conn{c: c, r: bufio.NewReader(c), host: addr}, nil
}

func (c *conn) close() { _ = c.c.Close() }

// do sends a request and returns the answer, whose body has been read. headers are whole lines. An
// answer that is not 2xx is an error.
func (c *conn) do(method, path, headers string, body [][]byte) (http.Header, []byte, error) {
	var length int
	for _, piece := range body {
		length += len(piece)
	}
	c.head = fmt.Appendf(c.head[:0], "%s %s HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n%s\r\n", method, path, c.host, length, headers)
	buffers := append(net.Buffers{c.head}, body...)
	_, writeErr := buffers.WriteTo(c.c)
	resp, err := http.ReadResponse(c.r, &http.Request{Method: method})
	if err != nil {
		if writeErr != nil {
			err = writeErr
		}
		return nil, nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	answer, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err == nil && resp.StatusCode/100 != 2 {
		err = fmt.Errorf("%s %s: %s: %.300s", method, path, resp.Status, answer)
	}
	return resp.Header, answer, err
}

// doJSON sends in as JSON and reads the answer into out.
func (c *conn) doJSON(method, path string, in, out any) error {
	var body [][]byte
	headers := ""
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body, headers = [][]byte{text}, "Content-Type: application/json\r\n"
	}
	_, answer, err := c.do(method, path, headers, body)
	if err != nil || out == nil {
		return err
	}
	return json.Unmarshal(answer, out)
}

// digestHeader announces the CRC-32C of a body, so that the server checks it.
func digestHeader(body [][]byte) string {
	var crc uint32
	for _, piece := range body {
		crc = crc32.Update(crc, upload.Castagnoli, piece)
	}
	return "Content-Digest: crc32c=:" + base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, crc)) + ":\r\n"
}
