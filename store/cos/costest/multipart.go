package costest

import (
	"encoding/xml"
	"net/http"
	"strconv"
	"strings"

	"gantry/internal/objectserver"
)

func (c *call) id() string { return c.query.Get("uploadId") }

// create answers 7746 (Initiate Multipart Upload).
func (c *call) create() error {
	u := c.bucket.Create(c.key, c.meta())
	c.answer(struct {
		XMLName     xml.Name `xml:"InitiateMultipartUploadResult"`
		Bucket, Key string
		UploadID    string `xml:"UploadId"`
	}{Bucket: c.bucket.Name(), Key: c.key, UploadID: u.ID})
	return nil
}

// putPart answers 7750 (Upload Part).
func (c *call) putPart() error {
	number, err := strconv.Atoi(c.query.Get("partNumber"))
	if err != nil {
		return objectserver.ErrPartNumber
	}
	b, err := c.receive()
	if err != nil {
		return err
	}
	p, err := c.bucket.PutPart(c.key, c.id(), number, b)
	if err != nil {
		return err
	}
	c.w.Header().Set("ETag", `"`+p.ETag+`"`)
	c.w.Header().Set(crcName, strconv.FormatUint(p.CRC64, 10))
	return nil
}

type listedPart struct {
	PartNumber         int
	LastModified, ETag string
	Size               int64
}

// listParts answers 7747 (List Parts). It tells no CRC-64.
func (c *call) listParts() error {
	most, encoded, err := c.page("max-parts")
	if err != nil {
		return err
	}
	after := 0
	if marker := c.query.Get("part-number-marker"); marker != "" {
		if after, err = strconv.Atoi(marker); err != nil || after < 0 {
			return fail(http.StatusBadRequest, "InvalidArgument", "part-number-marker is a number.")
		}
	}
	parts, more, err := c.bucket.Parts(c.key, c.id(), after, most)
	if err != nil {
		return err
	}
	result := struct {
		XMLName              xml.Name `xml:"ListPartsResult"`
		Bucket               string
		EncodingType         string `xml:"Encoding-type,omitempty"`
		Key                  string
		UploadID             string `xml:"UploadId"`
		PartNumberMarker     int
		NextPartNumberMarker int `xml:",omitempty"`
		StorageClass         string
		MaxParts             int
		IsTruncated          bool
		Part                 []listedPart
	}{
		Bucket: c.bucket.Name(), EncodingType: c.query.Get("encoding-type"), Key: encoded(c.key), UploadID: c.id(),
		PartNumberMarker: after, StorageClass: "STANDARD", MaxParts: most, IsTruncated: more,
	}
	for _, p := range parts {
		result.Part = append(result.Part, listedPart{p.Number, p.Modified.UTC().Format(iso8601), `"` + p.ETag + `"`, p.Size})
		if more {
			result.NextPartNumberMarker = p.Number
		}
	}
	c.answer(result)
	return nil
}

// complete answers 7742 (Complete Multipart Upload).
func (c *call) complete() error {
	var told struct {
		XMLName xml.Name `xml:"CompleteMultipartUpload"`
		Part    []struct {
			PartNumber int
			ETag       string
		}
	}
	if _, err := c.document(&told); err != nil {
		return err
	}
	if len(told.Part) == 0 || len(told.Part) > limits.MaxParts {
		return fail(http.StatusBadRequest, "MalformedXML", "There are 1 to %d parts.", limits.MaxParts)
	}
	parts := make([]objectserver.Part, len(told.Part))
	for i, p := range told.Part {
		parts[i] = objectserver.Part{Number: p.PartNumber, ETag: strings.Trim(p.ETag, `"`)}
		if i > 0 && p.PartNumber <= told.Part[i-1].PartNumber {
			return objectserver.ErrPartOrder
		}
	}
	for i, p := range parts {
		if p.Number != i+1 { // "If the part numbers are not continuous, 400 InvalidPart"
			return objectserver.ErrPart
		}
	}
	o, err := c.bucket.Complete(c.key, c.id(), parts, true)
	if err != nil {
		return err
	}
	// COS begins the answer, sends spaces while it works, and the result at the end.
	c.w.Header().Set("Content-Type", "application/xml")
	c.w.Header().Set(crcName, strconv.FormatUint(o.CRC64, 10))
	for range 3 {
		_, _ = c.w.Write([]byte(" "))
		if err := http.NewResponseController(c.w).Flush(); err != nil {
			return nil // the client has gone
		}
	}
	writeXML(c.w, struct {
		XMLName                     xml.Name `xml:"CompleteMultipartUploadResult"`
		Location, Bucket, Key, ETag string
	}{Location: c.r.Host + c.r.URL.EscapedPath(), Bucket: c.bucket.Name(), Key: c.key, ETag: `"` + o.ETag + `"`})
	return nil
}

// abort answers 7740 (Abort Multipart Upload).
func (c *call) abort() error {
	if err := c.bucket.Abort(c.key, c.id()); err != nil {
		return err
	}
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}

type listedUpload struct {
	Key                     string
	UploadID                string `xml:"UploadId"`
	StorageClass, Initiated string
}

// listUploads answers 7736 (List Multipart Uploads).
func (c *call) listUploads() error {
	most, encoded, err := c.page("max-uploads")
	if err != nil {
		return err
	}
	found, more := c.bucket.Uploads(c.query.Get("prefix"), c.query.Get("key-marker"), c.query.Get("upload-id-marker"), most)
	result := struct {
		XMLName            xml.Name `xml:"ListMultipartUploadsResult"`
		Bucket             string
		EncodingType       string `xml:"Encoding-Type,omitempty"`
		KeyMarker          string
		UploadIDMarker     string `xml:"UploadIdMarker"`
		NextKeyMarker      string `xml:",omitempty"`
		NextUploadIDMarker string `xml:"NextUploadIdMarker,omitempty"`
		MaxUploads         int
		IsTruncated        bool
		Prefix             string
		Upload             []listedUpload
	}{
		Bucket: c.bucket.Name(), EncodingType: c.query.Get("encoding-type"), KeyMarker: encoded(c.query.Get("key-marker")),
		UploadIDMarker: c.query.Get("upload-id-marker"), MaxUploads: most, IsTruncated: more, Prefix: encoded(c.query.Get("prefix")),
	}
	for _, u := range found {
		result.Upload = append(result.Upload, listedUpload{encoded(u.Key), u.ID, "STANDARD", u.Began.UTC().Format(iso8601)})
		if more {
			result.NextKeyMarker, result.NextUploadIDMarker = encoded(u.Key), u.ID
		}
	}
	c.answer(result)
	return nil
}
