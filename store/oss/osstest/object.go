package osstest

import (
	"io"
	"net/http"
	"strconv"
	"strings"
	"unicode/utf8"

	"gantry/internal/objectserver"
)

func validUTF8(key string) bool { return utf8.ValidString(key) }

// etag is written as OSS does: upper case, in quotes.
func etag(hexadecimal string) string { return `"` + strings.ToUpper(hexadecimal) + `"` }

// decimal is how OSS writes a CRC-64.
func decimal(sum uint64) string { return strconv.FormatUint(sum, 10) }

// meta is what of a request's headers is kept with an object.
func (q *request) meta() objectserver.Meta {
	m := objectserver.Meta{"content-type": "application/octet-stream"}
	for _, name := range []string{"content-type", "content-disposition", "content-encoding", "cache-control"} {
		if value := q.Header.Get(name); value != "" {
			m[name] = value
		}
	}
	return m
}

// replace reports whether an object that is there may be replaced; x-oss-forbid-overwrite is true or false:
// doc:user-guide/0017-00000279
func (q *request) replace() (bool, error) {
	switch q.Header.Get("X-Oss-Forbid-Overwrite") {
	case "true":
		return false, nil
	case "false", "":
		return true, nil
	}
	return false, invalid("The value of x-oss-forbid-overwrite is true or false.")
}

// exists is the answer where an object is not to be replaced: doc:user-guide/0026-00000002
func exists() *fault {
	return refuse(http.StatusConflict, "FileAlreadyExists", "The object you specified already exists and can not be overwritten.")
}

func (s *Server) put(q *request) error {
	if err := q.only(); err != nil {
		return err
	}
	replace, err := q.replace()
	if err != nil {
		return err
	}
	blob, err := s.receive(q)
	if err != nil {
		return err
	}
	o, err := q.bucket.Put(q.key, blob, q.meta(), replace)
	if err != nil {
		return exists()
	}
	// PutObject answers with the object's CRC-64: doc:user-guide/check-data-transmission-integrity-by-using-crc-64
	q.w.Header().Set("ETag", etag(o.ETag))
	q.w.Header().Set("X-Oss-Hash-Crc64ecma", decimal(o.CRC64))
	return nil
}

// overrides are the headers of an answer that a signed GET may set: doc:developer-reference/getobject
var overrides = []string{"content-type", "content-disposition", "content-language", "expires", "cache-control", "content-encoding"}

func (s *Server) get(q *request) error {
	known := make([]string, 0, len(overrides))
	for _, name := range overrides {
		known = append(known, "response-"+name)
	}
	if err := q.only(known...); err != nil {
		return err
	}
	for name := range q.Header {
		if strings.HasPrefix(name, "If-") {
			return refuse(http.StatusNotImplemented, "NotImplemented", "This server knows no conditional requests.")
		}
	}
	o := q.bucket.Object(q.key)
	if o == nil {
		return refuse(http.StatusNotFound, "NoSuchKey", "The specified key does not exist.")
	}
	h := q.w.Header()
	for name, value := range o.Meta {
		h.Set(name, value)
	}
	offset, length, status := int64(0), o.Size, http.StatusOK
	if q.Method == http.MethodGet {
		for _, name := range overrides {
			if value := q.query.Get("response-" + name); value != "" {
				h.Set(name, value)
			}
		}
		first, last, part, err := span(q.Header.Get("Range"), o.Size, q.Header.Get("X-Oss-Range-Behavior") == "standard")
		if err != nil {
			return err
		}
		if part {
			offset, length, status = first, last-first+1, http.StatusPartialContent
			h.Set("Content-Range", "bytes "+strconv.FormatInt(first, 10)+"-"+strconv.FormatInt(last, 10)+"/"+strconv.FormatInt(o.Size, 10))
		}
	}
	kind := "Normal"
	if strings.Contains(o.ETag, "-") {
		kind = "Multipart"
	}
	h.Set("Accept-Ranges", "bytes")
	h.Set("Content-Length", strconv.FormatInt(length, 10))
	h.Set("ETag", etag(o.ETag))
	h.Set("Last-Modified", o.Modified.UTC().Format(http.TimeFormat))
	h.Set("X-Oss-Object-Type", kind)
	h.Set("X-Oss-Storage-Class", "Standard")
	h.Set("X-Oss-Hash-Crc64ecma", decimal(o.CRC64)) // of the whole object, also where a range was asked for
	q.w.WriteHeader(status)
	if q.Method == http.MethodGet {
		_, _ = io.Copy(q.w, o.Read(offset, length)) // a client that has gone away
	}
	return nil
}

// span is what a Range header asks for, and whether it does. OSS ignores a range that does not lie within the object,
// and sends all of it, unless the request says that it is to do what the standard says: doc:developer-reference/getobject,
// https://help.aliyun.com/en/oss/how-to-obtain-oss-resources-by-segmenting-http-range-requests
func span(header string, size int64, standard bool) (first, last int64, part bool, err error) {
	unsatisfiable := refuse(http.StatusRequestedRangeNotSatisfiable, "InvalidRange", "The requested range cannot be satisfied.")
	value, ok := strings.CutPrefix(header, "bytes=")
	if !ok {
		return 0, 0, false, nil
	}
	if strings.Contains(value, ",") { // doc:user-guide/http-status-code-416
		return 0, 0, false, unsatisfiable
	}
	from, to, ok := strings.Cut(value, "-")
	if !ok {
		return 0, 0, false, nil
	}
	if from == "" {
		n, err := strconv.ParseInt(to, 10, 64)
		first, last = size-n, size-1
		if err != nil || n <= 0 || first < 0 && !standard {
			return 0, 0, false, nil
		}
		first = max(first, 0)
	} else {
		first, err = strconv.ParseInt(from, 10, 64)
		last = size - 1
		if err == nil && to != "" {
			last, err = strconv.ParseInt(to, 10, 64)
		}
		if err != nil || first < 0 || to != "" && last < first {
			return 0, 0, false, nil
		}
	}
	switch inside := first < size && last < size; {
	case inside:
		return first, last, true, nil
	case !standard:
		return 0, 0, false, nil
	case first >= size:
		return 0, 0, false, unsatisfiable
	}
	return first, size - 1, true, nil
}
