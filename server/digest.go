package server

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/binary"
	"hash"
	"io"
	"strings"

	"github.com/labstack/echo/v4"

	"gantry/chunkstore"
	"gantry/upload"
)

// maxDigestField bounds a Content-Digest field; the three known digests together need 200 bytes.
const maxDigestField = 4 << 10

// digests are the announced digests of some bytes.
type digests struct {
	crc32c *uint32
	checks []chunkstore.Check
}

// body is a request's content as the use cases take it in.
func (d *digests) body(c echo.Context, content io.Reader, length int64) chunkstore.Body {
	body := chunkstore.Body{Reader: content, Length: length, CRC32C: d.crc32c, Checks: d.checks}
	if in := bodyOf(c); in != nil {
		body.Abort = in.abort
	}
	return body
}

// parseContentDigest reads a Content-Digest field (RFC 9530): a dictionary of byte sequences, as in
// "sha-256=:<base64>:, crc32c=:<base64>:". Unknown algorithms are ignored, as the RFC wants it; a
// field that is not such a dictionary is upload.Invalid. Of a repeated key the last one counts
// (RFC 9651).
func parseContentDigest(fields []string) (digests, error) {
	var d digests
	if len(fields) == 0 {
		return d, nil
	}
	field := strings.Join(fields, ",")
	if len(field) > maxDigestField {
		return digests{}, malformedDigest()
	}
	want := make(map[string][]byte, 2)
	for member := range strings.SplitSeq(field, ",") {
		key, value, found := strings.Cut(strings.Trim(member, " \t"), "=")
		if !found || !isDigestKey(key) || len(value) < 2 || value[0] != ':' || value[len(value)-1] != ':' {
			return digests{}, malformedDigest()
		}
		sum, err := base64.StdEncoding.DecodeString(value[1 : len(value)-1])
		if err != nil {
			return digests{}, malformedDigest()
		}
		want[key] = sum
	}
	for key, sum := range want {
		var h hash.Hash
		switch key {
		case "crc32c":
			if len(sum) != 4 {
				return digests{}, malformedDigest()
			}
			crc := binary.BigEndian.Uint32(sum)
			d.crc32c = &crc
			continue
		case "sha-256":
			h = sha256.New()
		case "sha-512":
			h = sha512.New()
		default:
			continue
		}
		if len(sum) != h.Size() {
			return digests{}, malformedDigest()
		}
		d.checks = append(d.checks, chunkstore.Check{Hash: h, Want: sum})
	}
	return d, nil
}

// isDigestKey reports whether s is a key of a structured dictionary.
func isDigestKey(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z' || c == '*':
		case i > 0 && ('0' <= c && c <= '9' || c == '_' || c == '-' || c == '.'):
		default:
			return false
		}
	}
	return s != ""
}

func malformedDigest() error {
	return upload.Errorf(upload.Invalid, "", "", "Content-Digest is not as RFC 9530 has it: sha-256=:<base64>:, with sha-256, sha-512 or crc32c. Correct it, or leave it out.")
}
