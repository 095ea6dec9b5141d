package costest

import (
	"crypto/md5"
	"encoding/base64"
	"encoding/xml"
	"io"
	"net/http"
	"strconv"
	"strings"

	"gantry/internal/objectserver"
)

const crcName = "x-cos-hash-crc64ecma" // 43320 (CRC64 Check): decimal

// iso8601 is how listings tell the time, 7734 (GET Bucket).
const iso8601 = "2006-01-02T15:04:05.000Z"

// receive reads the body, and compares it with its Content-MD5: 7749 (PUT Object), 7750 (Upload Part).
func (c *call) receive() (*objectserver.Blob, error) {
	if err := c.announced(limits.MaxPart); err != nil {
		return nil, err
	}
	b, err := c.storage.Receive(c.r.Body)
	if err != nil {
		return nil, err
	}
	return b, c.compare(b.MD5)
}

// document reads a body that is XML.
func (c *call) document(v any) ([]byte, error) {
	if err := c.announced(2 << 20); err != nil {
		return nil, err
	}
	body, err := io.ReadAll(c.r.Body)
	if err != nil {
		return nil, err
	}
	if err := c.compare(md5.Sum(body)); err != nil {
		return nil, err
	}
	if err := xml.Unmarshal(body, v); err != nil {
		return nil, fail(http.StatusBadRequest, "MalformedXML", "The XML you provided was not well-formed.")
	}
	return body, nil
}

// announced checks how long the body says it is.
func (c *call) announced(most int64) error {
	if c.r.ContentLength < 0 {
		return fail(http.StatusLengthRequired, "MissingContentLength", "You must provide the Content-Length HTTP header.")
	}
	if c.r.ContentLength > most {
		return objectserver.ErrTooLarge
	}
	return nil
}

func (c *call) compare(got [md5.Size]byte) error {
	sent, there := c.r.Header["Content-Md5"]
	if !there {
		return nil
	}
	digest, err := base64.StdEncoding.DecodeString(sent[0])
	if err != nil || len(digest) != len(got) {
		return fail(http.StatusBadRequest, "InvalidDigest", "The Content-MD5 you specified is not valid.")
	}
	if [md5.Size]byte(digest) != got {
		return fail(http.StatusBadRequest, "BadDigest", "The Content-MD5 you specified did not match what we received.")
	}
	return nil
}

// meta is what the object's headers will be.
func (c *call) meta() objectserver.Meta {
	return objectserver.Meta{"Content-Type": c.r.Header.Get("Content-Type")}
}

func (c *call) putObject() error {
	b, err := c.receive()
	if err != nil {
		return err
	}
	o, err := c.bucket.Put(c.key, b, c.meta(), true)
	if err != nil {
		return err
	}
	c.w.Header().Set("ETag", `"`+o.ETag+`"`)
	c.w.Header().Set(crcName, strconv.FormatUint(o.CRC64, 10))
	return nil
}

// getObject answers GET and HEAD: 7753 (GET Object), 7745 (HEAD Object).
func (c *call) getObject() error {
	o := c.bucket.Object(c.key)
	if o == nil {
		return fail(http.StatusNotFound, "NoSuchKey", "The specified key does not exist.")
	}
	h := c.w.Header()
	h.Set("Content-Type", "application/octet-stream")
	for name, value := range o.Meta {
		if value != "" {
			h.Set(name, value)
		}
	}
	for _, name := range overrides {
		if c.query.Has(name) {
			h.Set(strings.TrimPrefix(name, "response-"), c.query.Get(name))
		}
	}
	h.Set("Accept-Ranges", "bytes")
	h.Set("ETag", `"`+o.ETag+`"`)
	h.Set("Last-Modified", o.Modified.UTC().Format(http.TimeFormat))
	h.Set(crcName, strconv.FormatUint(o.CRC64, 10)) // of the whole object, of a range too
	offset, length, status := int64(0), o.Size, http.StatusOK
	if spec := c.r.Header.Get("Range"); spec != "" && c.r.Method == http.MethodGet {
		var ok bool
		if offset, length, ok = parseRange(spec, o.Size); !ok {
			h.Set("Content-Range", "bytes */"+strconv.FormatInt(o.Size, 10))
			return fail(http.StatusRequestedRangeNotSatisfiable, "InvalidRange", "The requested range cannot be satisfied.")
		}
		status = http.StatusPartialContent
		h.Set("Content-Range", "bytes "+strconv.FormatInt(offset, 10)+"-"+strconv.FormatInt(offset+length-1, 10)+"/"+strconv.FormatInt(o.Size, 10))
	}
	h.Set("Content-Length", strconv.FormatInt(length, 10))
	c.w.WriteHeader(status)
	if c.r.Method == http.MethodGet {
		_, _ = io.Copy(c.w, o.Read(offset, length))
	}
	return nil
}

// parseRange reads a Range header with one range. One that cannot be read is refused, as one that lies outside.
func parseRange(spec string, size int64) (offset, length int64, ok bool) {
	spec, ok = strings.CutPrefix(spec, "bytes=")
	from, to, dash := strings.Cut(spec, "-")
	if !ok || !dash {
		return 0, 0, false
	}
	last := size - 1
	if to != "" {
		n, err := strconv.ParseUint(to, 10, 62)
		if err != nil {
			return 0, 0, false
		}
		last = min(last, int64(n))
		if from == "" { // the last n bytes
			offset = max(0, size-int64(n))
			return offset, size - offset, offset < size
		}
	}
	n, err := strconv.ParseUint(from, 10, 62)
	offset = int64(n)
	return offset, last - offset + 1, err == nil && offset <= last
}

// deleteObject answers 204 whether there was one or not, 7743 (DELETE Object).
func (c *call) deleteObject() error {
	c.bucket.Delete(c.key)
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}

// page reads how many entries a listing may have, and whether names are to be encoded.
func (c *call) page(name string) (most int, encoded func(string) string, err error) {
	most, encoded = 1000, func(s string) string { return s }
	if c.query.Has(name) {
		n, err := strconv.Atoi(c.query.Get(name))
		if err != nil || n < 1 || n > 1000 {
			return 0, nil, fail(http.StatusBadRequest, "InvalidArgument", "%s is a number from 1 to 1000.", name)
		}
		most = n
	}
	switch kind := c.query.Get("encoding-type"); {
	case kind == "url":
		encoded = encode
	case c.query.Has("encoding-type"):
		return 0, nil, fail(http.StatusBadRequest, "InvalidArgument", "The only encoding-type is url.")
	}
	return most, encoded, nil
}

type listedObject struct {
	Key, LastModified, ETag string
	Size                    int64
	StorageClass            string
}

// listObjects answers 7734 (GET Bucket).
func (c *call) listObjects() error {
	most, encoded, err := c.page("max-keys")
	if err != nil {
		return err
	}
	found, more := c.bucket.Objects(c.query.Get("prefix"), c.query.Get("marker"), most)
	result := struct {
		XMLName                  xml.Name `xml:"ListBucketResult"`
		Name, Prefix, Marker     string
		MaxKeys                  int
		IsTruncated              bool
		EncodingType, NextMarker string         `xml:",omitempty"`
		Contents                 []listedObject `xml:"Contents"`
	}{
		Name: c.bucket.Name(), Prefix: encoded(c.query.Get("prefix")), Marker: encoded(c.query.Get("marker")), MaxKeys: most,
		IsTruncated: more, EncodingType: c.query.Get("encoding-type"),
	}
	for _, o := range found {
		result.Contents = append(result.Contents, listedObject{encoded(o.Key), o.Modified.UTC().Format(iso8601), `"` + o.ETag + `"`, o.Size, "STANDARD"})
		if more {
			result.NextMarker = encoded(o.Key)
		}
	}
	c.answer(result)
	return nil
}

func (c *call) answer(v any) {
	c.w.Header().Set("Content-Type", "application/xml")
	writeXML(c.w, v)
}
