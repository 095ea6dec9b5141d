package server

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"gantry/upload"
)

// maxRanges is how many ranges of one file a request may ask for.
const maxRanges = 8

// span is a part of some content.
type span struct{ offset, length int64 }

func (s span) contentRange(size int64) string {
	return fmt.Sprintf("bytes %d-%d/%d", s.offset, s.offset+s.length-1, size)
}

// parseRange reads a Range header for content of size bytes. It returns nil where the whole content
// is to be sent: without a header, for units other than bytes (RFC 9110, section 14.2), for empty
// content, and where the ranges together are longer than the content. Malformed ranges, more than
// maxRanges and those with nothing in the content are upload.BadRange.
func parseRange(header string, size int64) ([]span, error) {
	unit, list, found := strings.Cut(header, "=")
	if header == "" || found && !strings.EqualFold(strings.TrimSpace(unit), "bytes") {
		return nil, nil
	}
	if !found {
		return nil, badRange()
	}
	if strings.Count(list, ",") >= maxRanges {
		return nil, upload.Errorf(upload.BadRange, "", "", "A request has at most %d ranges. Ask for fewer.", maxRanges)
	}
	var spans []span
	var total int64
	for spec := range strings.SplitSeq(list, ",") {
		s, ok, err := parseSpan(strings.Trim(spec, " \t"), size)
		if err != nil {
			return nil, err
		}
		if ok {
			spans = append(spans, s)
			total += s.length
		}
	}
	switch {
	case size == 0:
		return nil, nil
	case len(spans) == 0:
		return nil, badRange()
	case total > size: // overlapping: the whole is less
		return nil, nil
	}
	return spans, nil
}

// parseSpan reads "a-b", "a-" or "-n". ok is false if nothing of it lies in the content.
func parseSpan(spec string, size int64) (s span, ok bool, err error) {
	first, last, found := strings.Cut(spec, "-")
	if !found || first == "" && last == "" {
		return span{}, false, badRange()
	}
	if first == "" {
		n, err := parseOffset(last)
		if err != nil {
			return span{}, false, err
		}
		n = min(n, size)
		return span{size - n, n}, n > 0, nil
	}
	from, err := parseOffset(first)
	if err != nil {
		return span{}, false, err
	}
	to := size - 1
	if last != "" {
		if to, err = parseOffset(last); err != nil {
			return span{}, false, err
		}
		if to < from {
			return span{}, false, badRange()
		}
		to = min(to, size-1)
	}
	if from >= size {
		return span{}, false, nil
	}
	return span{from, to - from + 1}, true, nil
}

// parseOffset reads digits. Numbers that do not fit are far behind any content.
func parseOffset(text string) (int64, error) {
	if text == "" || strings.Trim(text, "0123456789") != "" {
		return 0, badRange()
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 1<<63 - 2, nil // out of range, and one can still be added
	}
	return min(n, 1<<63-2), nil
}

func badRange() error {
	return upload.Errorf(upload.BadRange, "", "", "The Range is malformed or lies outside the content. Ask for one inside; Content-Range has the length.")
}

// preconditions evaluates a GET's or HEAD's conditions in the order of RFC 9110, section 13.2.2.
// notModified: the client has the current version. ranged: its Range counts. upload.PreconditionFailed
// if it wants another version.
func preconditions(r *http.Request, etag string, modified time.Time) (notModified, ranged bool, err error) {
	h := r.Header
	modified = modified.Truncate(time.Second)
	if match := strings.Join(h["If-Match"], ","); match != "" {
		if !etagListed(match, etag, false) {
			return false, false, upload.PreconditionFailed
		}
	} else if since, err := http.ParseTime(h.Get("If-Unmodified-Since")); err == nil && modified.After(since) {
		return false, false, upload.PreconditionFailed
	}
	if none := strings.Join(h["If-None-Match"], ","); none != "" {
		if etagListed(none, etag, true) {
			return true, false, nil
		}
	} else if since, err := http.ParseTime(h.Get("If-Modified-Since")); err == nil && !modified.After(since) {
		return true, false, nil
	}
	ranged = r.Method == http.MethodGet && h.Get("Range") != ""
	if cond := h.Get("If-Range"); ranged && cond != "" {
		// A date counts as another version: a file can be replaced twice within its second.
		ranged = cond == etag
	}
	return false, ranged, nil
}

// etagListed reports whether a list of entity tags has etag, which is a strong one. weak: W/"x"
// stands for "x" too.
func etagListed(list, etag string, weak bool) bool {
	for {
		list = strings.TrimLeft(list, " \t,")
		if list == "*" {
			return true
		}
		tag, isWeak := strings.CutPrefix(list, "W/")
		if !strings.HasPrefix(tag, `"`) {
			return false // malformed: nothing after it counts
		}
		end := strings.IndexByte(tag[1:], '"')
		if end < 0 {
			return false
		}
		if tag[:end+2] == etag && (weak || !isWeak) {
			return true
		}
		list = tag[end+2:]
	}
}
