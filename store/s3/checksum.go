package s3

import (
	"crypto/md5" //nolint:gosec // Content-MD5, against faults on the way; Verify proves the content
	"encoding/base64"
	"encoding/binary"
	"hash/crc32"
	"sync/atomic"

	"github.com/minio/minio-go/v7"

	"gantry/upload"
)

// Of S3's additional checksums: AWS has them since 2022, MinIO and Ceph have them in newer versions, and a checksum
// of a whole object that was sent in parts since 2025.
// https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity-upload.html
const (
	checksumHeader = "x-amz-checksum-crc32c"
	wholeObject    = "FULL_OBJECT" // as opposed to a checksum of the parts' checksums
)

// checksums is what is known of them from a server's answers, for one kind of request. The zero value knows nothing.
type checksums struct {
	state atomic.Int32
	// late: where the server has none, bodies are sent without any digest, and what was damaged on the way is found
	// when the whole is read back. An MD5 costs more than all else that a transfer does.
	late bool
}

const (
	unknown int32 = iota
	given         // the server checks a CRC32C and keeps it
	refused       // the server takes no request that has one
	ignored       // the server takes it and answers none
)

func (c *checksums) refused() bool { return c.state.Load() == refused }
func (c *checksums) refuse()       { c.state.Store(refused) }

// send makes a request whose body the server checks: by a CRC32C if it has answered one before, by Content-MD5 if
// it refuses or ignores that (see late), and by both as long as it is not known. request returns the CRC32C that the
// server answers, "" if none.
func (c *checksums) send(body []byte, request func(md5, crc32c string) (string, error)) (string, error) {
	var digest, crc string
	state := c.state.Load()
	if state == unknown || state == given {
		crc = crc32cOf(body)
	}
	if state == unknown || state == refused || state == ignored && !c.late {
		digest = md5Of(body)
	}
	answer, err := request(digest, crc)
	switch {
	case crc != "" && err == nil && answer != "":
		c.state.Store(given)
	case crc != "" && err == nil:
		c.state.Store(ignored)
	case crc != "" && refusesChecksum(err):
		if answer, err = request(md5Of(body), ""); err == nil {
			c.refuse()
		}
	}
	return answer, err
}

// refusesChecksum reports whether an error may come from a checksum that the server does not know. It need not: the
// request without it will tell.
func refusesChecksum(err error) bool {
	switch minio.ToErrorResponse(err).Code {
	case "NotImplemented", "InvalidRequest", "InvalidArgument":
		return true
	}
	return false
}

// md5Of returns a Content-MD5.
func md5Of(body []byte) string {
	digest := md5.Sum(body)
	return base64.StdEncoding.EncodeToString(digest[:])
}

// crc32cOf returns a checksum as S3 writes it.
func crc32cOf(body []byte) string { return written(crc32.Checksum(body, upload.Castagnoli)) }

func written(crc32c uint32) string {
	return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, crc32c))
}
