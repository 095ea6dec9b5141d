package osstest

import (
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"gantry/internal/objectserver"
)

// ofUpload turns what a multipart upload refuses into OSS's words: doc:developer-reference/completemultipartupload,
// doc:developer-reference/uploadpart
func ofUpload(err error) error {
	bad := http.StatusBadRequest
	switch {
	case err == nil:
		return nil
	case errors.Is(err, objectserver.ErrNoUpload): // doc:user-guide/0017-00000244
		return refuse(http.StatusNotFound, "NoSuchUpload", "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or completed.")
	case errors.Is(err, objectserver.ErrExists):
		return exists()
	case errors.Is(err, objectserver.ErrPart):
		return refuse(bad, "InvalidPart", "One or more of the specified parts could not be found or the specified entity tag might not have matched the part's entity tag.")
	case errors.Is(err, objectserver.ErrPartOrder):
		return refuse(bad, "InvalidPartOrder", "The list of parts was not in ascending order.")
	case errors.Is(err, objectserver.ErrPartTooSmall): // all but the last have 100 KiB: doc:user-guide/0042-00000213
		return refuse(bad, "EntityTooSmall", "Your proposed upload smaller than the minimum allowed size.")
	case errors.Is(err, objectserver.ErrPartNumber): // doc:user-guide/0017-00000220
		return invalid("Part number must be an integer between 1 and 10000, inclusive.")
	}
	return err
}

func create(q *request) error {
	if err := q.only("uploads", "encoding-type"); err != nil {
		return err
	}
	if replace, err := q.replace(); err != nil {
		return err
	} else if !replace && q.bucket.Object(q.key) != nil {
		return exists()
	}
	u := q.bucket.Create(q.key, q.meta())
	return q.answer(struct {
		XMLName  xml.Name `xml:"InitiateMultipartUploadResult"`
		Bucket   string
		Key      string
		UploadID string `xml:"UploadId"`
	}{Bucket: q.name, Key: u.Key, UploadID: u.ID})
}

func (s *Server) putPart(q *request) error {
	if err := q.only("uploadId", "partNumber"); err != nil {
		return err
	}
	number, err := strconv.Atoi(q.query.Get("partNumber"))
	if err != nil {
		return ofUpload(objectserver.ErrPartNumber)
	}
	if _, _, err := q.bucket.Parts(q.key, q.query.Get("uploadId"), 0, 0); err != nil {
		return ofUpload(err) // before the body is read
	}
	blob, err := s.receive(q)
	if err != nil {
		return err
	}
	part, err := q.bucket.PutPart(q.key, q.query.Get("uploadId"), number, blob)
	if err != nil {
		return ofUpload(err)
	}
	q.w.Header().Set("ETag", etag(part.ETag))
	q.w.Header().Set("X-Oss-Hash-Crc64ecma", decimal(part.CRC64))
	return nil
}

func complete(q *request) error {
	if err := q.only("uploadId", "encoding-type"); err != nil {
		return err
	}
	replace, err := q.replace()
	if err != nil {
		return err
	}
	var told struct {
		XMLName xml.Name `xml:"CompleteMultipartUpload"`
		Parts   []struct {
			PartNumber int
			ETag       string
		} `xml:"Part"`
	}
	body, err := io.ReadAll(io.LimitReader(q.Body, 4<<20))
	if err != nil || xml.Unmarshal(body, &told) != nil {
		return refuse(http.StatusBadRequest, "MalformedXML", "The XML you provided was not well-formed or did not validate against our published schema.")
	}
	parts := make([]objectserver.Part, 0, len(told.Parts))
	for _, p := range told.Parts {
		if p.PartNumber < 1 || p.PartNumber > limits.MaxParts {
			return ofUpload(objectserver.ErrPartNumber)
		}
		parts = append(parts, objectserver.Part{Number: p.PartNumber, ETag: unquote(p.ETag)})
	}
	o, err := q.bucket.Complete(q.key, q.query.Get("uploadId"), parts, replace)
	if err != nil {
		return ofUpload(err)
	}
	q.w.Header().Set("X-Oss-Hash-Crc64ecma", decimal(o.CRC64))
	return q.answer(struct {
		XMLName                     xml.Name `xml:"CompleteMultipartUploadResult"`
		Location, Bucket, Key, ETag string
	}{Location: "http://" + q.Host + "/" + q.key, Bucket: q.name, Key: o.Key, ETag: etag(o.ETag)})
}

func unquote(tag string) string {
	if len(tag) > 1 && tag[0] == '"' && tag[len(tag)-1] == '"' {
		return tag[1 : len(tag)-1]
	}
	return tag
}

func abort(q *request) error {
	if err := q.only("uploadId"); err != nil {
		return err
	}
	if err := q.bucket.Abort(q.key, q.query.Get("uploadId")); err != nil {
		return ofUpload(err)
	}
	q.w.WriteHeader(http.StatusNoContent)
	return nil
}

// stamp is a time as OSS writes it.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

// most reads a parameter that limits a page.
func (q *request) most(name string, otherwise int) (int, error) {
	value := q.query.Get(name)
	if value == "" {
		return otherwise, nil
	}
	n, err := strconv.Atoi(value)
	if err != nil || n < 1 || n > 1000 {
		return 0, invalid("Argument %s must be an integer between 1 and 1000.", name)
	}
	return n, nil
}

// encode is how keys are written in a listing: encoding-type may be url.
func (q *request) encode() (func(string) string, error) {
	switch q.query.Get("encoding-type") {
	case "":
		return func(key string) string { return key }, nil
	case "url":
		return url.QueryEscape, nil
	}
	return nil, invalid("Invalid Encoding Method specified in Request.")
}

// A part is listed with its CRC-64: doc:developer-reference/listparts
func listParts(q *request) error {
	if err := q.only("uploadId", "max-parts", "part-number-marker", "encoding-type"); err != nil {
		return err
	}
	most, err := q.most("max-parts", 1000)
	if err != nil {
		return err
	}
	encode, err := q.encode()
	if err != nil {
		return err
	}
	after := 0
	if marker := q.query.Get("part-number-marker"); marker != "" {
		if after, err = strconv.Atoi(marker); err != nil || after < 0 || after > limits.MaxParts {
			return invalid("Argument part-number-marker must be an integer between 0 and 10000.")
		}
	}
	parts, more, err := q.bucket.Parts(q.key, q.query.Get("uploadId"), after, most)
	if err != nil {
		return ofUpload(err)
	}
	type part struct {
		PartNumber    int
		LastModified  string
		ETag          string
		HashCrc64ecma uint64
		Size          int64
	}
	result := struct {
		XMLName              xml.Name `xml:"ListPartsResult"`
		Bucket, Key          string
		UploadID             string `xml:"UploadId"`
		PartNumberMarker     int
		NextPartNumberMarker int `xml:",omitempty"`
		MaxParts             int
		IsTruncated          bool
		Parts                []part `xml:"Part"`
	}{Bucket: q.name, Key: encode(q.key), UploadID: q.query.Get("uploadId"), PartNumberMarker: after, MaxParts: most, IsTruncated: more}
	for _, p := range parts {
		result.Parts = append(result.Parts, part{p.Number, stamp(p.Modified), etag(p.ETag), p.CRC64, p.Size})
		result.NextPartNumberMarker = p.Number
	}
	return q.answer(result)
}
