// Package objectserver is what servers have in common that stand in for a provider's object store in tests: buckets,
// objects on disk, multipart uploads and their rules. It knows no protocol: how requests are signed, and what an
// error is called, is for the package that makes a server of it.
package objectserver

import (
	"crypto/md5" //nolint:gosec // the ETag of object stores
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// What a Bucket refuses.
var (
	ErrExists       = errors.New("there is such an object, and it was not to be replaced")
	ErrNoUpload     = errors.New("there is no such multipart upload, or no more")
	ErrPartNumber   = errors.New("the number of a part is out of range")
	ErrPart         = errors.New("a part is not there, or has another ETag")
	ErrPartOrder    = errors.New("the parts are not in ascending order")
	ErrPartTooSmall = errors.New("a part that is not the last is too small")
	ErrTooLarge     = errors.New("too many bytes")
)

// Limits are those of the store that is stood in for.
type Limits struct {
	MinPart, MaxPart int64 // bytes; the last part may be smaller
	MaxParts         int   // the highest number too
}

// Storage has buckets, and forgets them when its process ends. It is made by New; all methods are safe for
// concurrent use, those of its buckets too.
type Storage struct {
	dir    string
	limits Limits

	mu      sync.Mutex
	buckets map[string]*Bucket
}

// New returns an empty storage that keeps large bodies in dir, "" for the system's directory for temporary files.
func New(dir string, limits Limits) *Storage {
	return &Storage{dir: dir, limits: limits, buckets: map[string]*Bucket{}}
}

// MakeBucket makes a bucket, unless it is there.
func (s *Storage) MakeBucket(name string) *Bucket {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, ok := s.buckets[name]
	if !ok {
		b = &Bucket{
			name: name, made: time.Now(), limits: s.limits,
			objects: map[string]*Object{}, uploads: map[string]*multipart{}, settings: map[string][]byte{},
		}
		s.buckets[name] = b
	}
	return b
}

// Bucket returns a bucket; nil if there is none.
func (s *Storage) Bucket(name string) *Bucket {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buckets[name]
}

// Bucket is one bucket. What it returns is not changed any more.
type Bucket struct {
	name   string
	made   time.Time
	limits Limits

	mu       sync.Mutex
	objects  map[string]*Object
	uploads  map[string]*multipart // by id
	count    int                   // of uploads ever, so that ids ascend as they begin
	settings map[string][]byte
}

// Object is one object.
type Object struct {
	Key      string
	Size     int64
	ETag     string // hexadecimal MD5; of an object made of parts the MD5 of theirs, a dash and their number
	CRC64    uint64
	Modified time.Time
	Meta     Meta

	blobs []*Blob
}

// Meta is what a client said of an object: header names, in lower case, and values.
type Meta map[string]string

// Name and Made are those of the bucket.
func (b *Bucket) Name() string { return b.name }

// Made is when the bucket was made.
func (b *Bucket) Made() time.Time { return b.made }

// Put stores an object, ErrExists if there is one that is not to be replaced.
func (b *Bucket) Put(key string, blob *Blob, meta Meta, replace bool) (*Object, error) {
	o := &Object{
		Key: key, Size: blob.Size, ETag: hex.EncodeToString(blob.MD5[:]), CRC64: blob.CRC64, Modified: time.Now(), Meta: meta,
		blobs: []*Blob{blob},
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.objects[key] != nil && !replace {
		return nil, ErrExists
	}
	b.objects[key] = o
	return o, nil
}

// Object returns an object; nil if there is none.
func (b *Bucket) Object(key string) *Object {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.objects[key]
}

// Delete removes an object, if it is there.
func (b *Bucket) Delete(key string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.objects, key)
}

// Objects lists at most so many objects after a key, in the order of keys, and says whether there are more.
func (b *Bucket) Objects(prefix, after string, most int) (page []*Object, more bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, key := range slices.Sorted(maps.Keys(b.objects)) {
		if key <= after || !strings.HasPrefix(key, prefix) {
			continue
		}
		if len(page) == most {
			return page, true
		}
		page = append(page, b.objects[key])
	}
	return page, false
}

// Set keeps a setting of the bucket, a document of the protocol's.
func (b *Bucket) Set(name string, document []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.settings[name] = document
}

// Setting returns it; nil if it was never set.
func (b *Bucket) Setting(name string) []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.settings[name]
}

// Upload is a multipart upload that has not ended.
type Upload struct {
	Key, ID string
	Began   time.Time
}

// Part is a part of one.
type Part struct {
	Number   int
	Size     int64
	ETag     string
	CRC64    uint64
	Modified time.Time
}

type multipart struct {
	Upload
	meta  Meta
	parts map[int]*part
}

type part struct {
	Part
	blob *Blob
}

// Create begins a multipart upload.
func (b *Bucket) Create(key string, meta Meta) Upload {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.count++
	u := &multipart{Upload{key, fmt.Sprintf("%032X", b.count), time.Now()}, meta, map[int]*part{}}
	b.uploads[u.ID] = u
	return u.Upload
}

// find returns a multipart upload; the caller holds mu.
func (b *Bucket) find(key, id string) (*multipart, error) {
	if u := b.uploads[id]; u != nil && u.Key == key {
		return u, nil
	}
	return nil, ErrNoUpload
}

// PutPart stores a part, instead of the one of the same number if there is one.
func (b *Bucket) PutPart(key, id string, number int, blob *Blob) (Part, error) {
	if number < 1 || number > b.limits.MaxParts {
		return Part{}, ErrPartNumber
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	u, err := b.find(key, id)
	if err != nil {
		return Part{}, err
	}
	p := &part{Part{number, blob.Size, hex.EncodeToString(blob.MD5[:]), blob.CRC64, time.Now()}, blob}
	u.parts[number] = p
	return p.Part, nil
}

// Parts lists at most so many parts after a number, in the order of their numbers, and says whether there are more.
func (b *Bucket) Parts(key, id string, after, most int) (page []Part, more bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	u, err := b.find(key, id)
	if err != nil {
		return nil, false, err
	}
	for _, number := range slices.Sorted(maps.Keys(u.parts)) {
		if number <= after {
			continue
		}
		if len(page) == most {
			return page, true, nil
		}
		page = append(page, u.parts[number].Part)
	}
	return page, false, nil
}

// Complete makes an object of parts, of which number and ETag are told, hexadecimal in upper or lower case. The upload
// ends, unless there is an error.
func (b *Bucket) Complete(key, id string, told []Part, replace bool) (*Object, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	u, err := b.find(key, id)
	if err != nil {
		return nil, err
	}
	if b.objects[key] != nil && !replace {
		return nil, ErrExists
	}
	if len(told) == 0 {
		return nil, ErrPart
	}
	o := &Object{Key: key, Modified: time.Now(), Meta: u.meta}
	sum := md5.New()
	last := 0
	for i, t := range told {
		if t.Number <= last {
			return nil, ErrPartOrder
		}
		last = t.Number
		p := u.parts[t.Number]
		if p == nil || !strings.EqualFold(p.ETag, t.ETag) {
			return nil, ErrPart
		}
		if p.Size < b.limits.MinPart && i < len(told)-1 {
			return nil, ErrPartTooSmall
		}
		o.CRC64 = CombineCRC64(o.CRC64, p.CRC64, p.Size)
		o.Size += p.Size
		o.blobs = append(o.blobs, p.blob)
		_, _ = sum.Write(p.blob.MD5[:])
	}
	o.ETag = fmt.Sprintf("%x-%d", sum.Sum(nil), len(told))
	b.objects[key] = o
	delete(b.uploads, id)
	return o, nil
}

// Abort ends a multipart upload.
func (b *Bucket) Abort(key, id string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, err := b.find(key, id)
	if err == nil {
		delete(b.uploads, id)
	}
	return err
}

// Uploads lists at most so many multipart uploads in the order of their keys, those of the same key in the order in
// which they began: of the key after, those after an id, and all of the keys after that. It says whether there are more.
func (b *Bucket) Uploads(prefix, after, id string, most int) (page []Upload, more bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := slices.SortedFunc(maps.Values(b.uploads), func(x, y *multipart) int {
		if c := strings.Compare(x.Key, y.Key); c != 0 {
			return c
		}
		return strings.Compare(x.ID, y.ID)
	})
	for _, u := range all {
		if !strings.HasPrefix(u.Key, prefix) || u.Key < after || u.Key == after && (id == "" || u.ID <= id) {
			continue
		}
		if len(page) == most {
			return page, true
		}
		page = append(page, u.Upload)
	}
	return page, false
}
