package s3

import (
	"context"
	"crypto/md5" //nolint:gosec // S3's ETag and Content-MD5 against faults; Verify proves the content
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"
	"golang.org/x/sync/errgroup"

	"gantry/store"
	"gantry/upload"
)

// Put sends the content in one request, or in parts, several at a time. What a killed Put has sent is found again by the
// next one, which sends only what is missing or other. Nothing is held in memory but what goes through it.
func (s *Store) Put(ctx context.Context, key string, content store.Content, progress func(sent int64)) error {
	const op = "s3.Put"
	if err := s.checkKey(key); err != nil {
		return err
	}
	p := &put{store: s, object: s.opt.Prefix + key, key: key, content: content, size: content.Size(), progress: progress}
	var err error
	if p.size <= s.opt.PartSize {
		err = p.whole(ctx)
	} else {
		err = p.parts(ctx)
	}
	if err != nil && ctx.Err() != nil {
		return upload.Wrap(upload.Canceled, op, key, errors.Join(ctx.Err(), err))
	}
	return classify(op, key, err)
}

// put is one Put.
type put struct {
	store    *Store
	object   string // its name in the bucket
	key      string
	content  store.Content
	size     int64
	progress func(sent int64)

	mu   sync.Mutex
	sent int64
}

func (p *put) done(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sent += n
	if p.progress != nil {
		p.progress(p.sent)
	}
}

// section is a part of the content. Reading it says why it could not be read, which minio's client does not always.
type section struct {
	*io.SectionReader
	err error
}

func (p *put) section(offset, length int64) *section {
	return &section{SectionReader: io.NewSectionReader(p.content, offset, length)}
}

func (r *section) Read(b []byte) (int, error) {
	n, err := r.SectionReader.Read(b)
	if err != nil && !errors.Is(err, io.EOF) {
		r.err = err
	}
	return n, err
}

// sum is the MD5 of a section, which has to have all of its bytes.
func (p *put) sum(offset, length int64) ([]byte, error) {
	h := md5.New() //nolint:gosec // see above
	n, err := io.Copy(h, io.NewSectionReader(p.content, offset, length))
	if err == nil && n != length {
		err = fmt.Errorf("the content ends %d bytes early: %w", length-n, io.ErrUnexpectedEOF)
	}
	return h.Sum(nil), err
}

func (p *put) whole(ctx context.Context) error {
	sum, err := p.sum(0, p.size)
	if err != nil {
		return err
	}
	body := p.section(0, p.size)
	_, err = p.store.client.PutObject(ctx, p.store.opt.Bucket, p.object, body, p.size, base64.StdEncoding.EncodeToString(sum), "", minio.PutObjectOptions{DisableContentSha256: true})
	if err = errors.Join(body.err, err); err != nil {
		return err
	}
	p.done(p.size)
	return nil
}

// partSize is the store's, or as much more as keeps the parts to what S3 takes.
func (p *put) partSize() int64 {
	size := p.store.opt.PartSize
	for (p.size+size-1)/size > maxParts {
		size *= 2
	}
	return size
}

func (p *put) parts(ctx context.Context) error {
	client, bucket := p.store.client, p.store.opt.Bucket
	id, there, err := p.resume(ctx)
	if err == nil && id == "" {
		id, err = client.NewMultipartUpload(ctx, bucket, p.object, minio.PutObjectOptions{})
	}
	if err != nil {
		return err
	}
	size := p.partSize()
	parts := make([]minio.CompletePart, (p.size+size-1)/size)
	group, sending := errgroup.WithContext(ctx)
	group.SetLimit(p.store.opt.Parts)
	for i := range parts {
		if sending.Err() != nil {
			break
		}
		group.Go(func() error {
			offset := int64(i) * size
			etag, err := p.part(sending, id, i+1, offset, min(size, p.size-offset), there[i+1])
			parts[i] = minio.CompletePart{PartNumber: i + 1, ETag: etag}
			return err
		})
	}
	if err := errors.Join(group.Wait(), ctx.Err()); err != nil {
		return err
	}
	_, err = client.CompleteMultipartUpload(ctx, bucket, p.object, id, parts, minio.PutObjectOptions{})
	if err == nil {
		return nil
	}
	// The store may have done it all the same. If it has, the upload is gone and the object is there; what it has
	// Verify finds out.
	if _, _, lookErr := p.resume(ctx); lookErr == nil {
		if n, sizeErr := p.store.Size(ctx, p.key); sizeErr == nil && n == p.size && p.gone(ctx, id) {
			return nil
		}
	}
	return err
}

// gone reports whether a multipart upload is not there any more.
func (p *put) gone(ctx context.Context, id string) bool {
	_, err := p.store.client.ListObjectParts(ctx, p.store.opt.Bucket, p.object, id, 0, 1)
	return errors.Is(classify("", "", err), upload.NotFound)
}

// part sends one part, unless the store has it already as it should be.
func (p *put) part(ctx context.Context, id string, number int, offset, length int64, there minio.ObjectPart) (etag string, err error) {
	sum, err := p.sum(offset, length)
	if err != nil {
		return "", err
	}
	want := hex.EncodeToString(sum)
	if there.Size == length && strings.Trim(there.ETag, `"`) == want {
		p.done(length)
		return there.ETag, nil
	}
	body := p.section(offset, length)
	sent, err := p.store.client.PutObjectPart(ctx, p.store.opt.Bucket, p.object, id, number, body, length,
		minio.PutObjectPartOptions{Md5Base64: base64.StdEncoding.EncodeToString(sum), DisableContentSha256: true})
	if err = errors.Join(body.err, err); err != nil {
		return "", err
	}
	p.done(length)
	return sent.ETag, nil
}

// resume finds the newest multipart upload of the object and what it has. Older ones are of no use.
func (p *put) resume(ctx context.Context) (id string, there map[int]minio.ObjectPart, err error) {
	uploads, err := p.store.uploads(ctx, p.object)
	if err != nil {
		return "", nil, err
	}
	var newest minio.ObjectMultipartInfo
	for _, u := range uploads {
		if u.Key != p.object {
			continue
		}
		older := u
		if u.Initiated.After(newest.Initiated) {
			older, newest = newest, u
		}
		if older.UploadID != "" {
			if err := p.store.abort(ctx, older); err != nil {
				return "", nil, err
			}
		}
	}
	if newest.UploadID == "" {
		return "", nil, nil
	}
	there = map[int]minio.ObjectPart{}
	for marker := 0; ; {
		page, err := p.store.client.ListObjectParts(ctx, p.store.opt.Bucket, p.object, newest.UploadID, marker, 1000)
		if err != nil {
			return "", nil, err
		}
		for _, part := range page.ObjectParts {
			there[part.PartNumber] = part
		}
		if !page.IsTruncated {
			return newest.UploadID, there, nil
		}
		marker = page.NextPartNumberMarker
	}
}

// uploads lists the multipart uploads of objects whose names begin so.
func (s *Store) uploads(ctx context.Context, prefix string) (all []minio.ObjectMultipartInfo, err error) {
	keyMarker, idMarker := "", ""
	for {
		page, err := s.client.ListMultipartUploads(ctx, s.opt.Bucket, prefix, keyMarker, idMarker, "", 1000)
		if err != nil {
			return nil, err
		}
		all = append(all, page.Uploads...)
		if !page.IsTruncated {
			return all, nil
		}
		keyMarker, idMarker = page.NextKeyMarker, page.NextUploadIDMarker
	}
}

func (s *Store) abort(ctx context.Context, u minio.ObjectMultipartInfo) error {
	err := classify("s3.abort", u.Key, s.client.AbortMultipartUpload(ctx, s.opt.Bucket, u.Key, u.UploadID))
	if errors.Is(err, upload.NotFound) {
		return nil
	}
	return err
}

// abandoned is after how long a multipart upload will not be gone on with.
const abandoned = 7 * 24 * time.Hour

// Clean aborts multipart uploads that nobody goes on with. Newer ones the next Put of their object finds.
func (s *Store) Clean(ctx context.Context) error {
	const op = "s3.Clean"
	uploads, err := s.uploads(ctx, s.opt.Prefix)
	if err != nil {
		return classify(op, "", err)
	}
	for _, u := range uploads {
		if time.Since(u.Initiated) < abandoned {
			continue
		}
		if err := s.abort(ctx, u); err != nil {
			return err
		}
	}
	return nil
}
