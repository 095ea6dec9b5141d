package objectserver

import (
	"bytes"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc64"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
)

var limits = Limits{MinPart: 10, MaxPart: 1 << 20, MaxParts: 20}

func random(n int) []byte {
	data := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(n)}).Read(data)
	return data
}

func receive(t *testing.T, s *Storage, data []byte) *Blob {
	t.Helper()
	b, err := s.Receive(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestCombineCRC64(t *testing.T) {
	data := random(100_000)
	want := crc64.Checksum(data, ecma)
	for _, cut := range []int{0, 1, 7, 8, 4096, 65537, 99_999, 100_000} {
		if got := CombineCRC64(crc64.Checksum(data[:cut], ecma), crc64.Checksum(data[cut:], ecma), int64(len(data)-cut)); got != want {
			t.Errorf("cut at %d: %016x, want %016x", cut, got, want)
		}
	}
}

func TestReceive(t *testing.T) {
	dir := t.TempDir()
	s := New(dir, limits)
	for _, n := range []int{0, 1, inMemory, inMemory + 1, 1 << 20} {
		data := random(n)
		b := receive(t, s, data)
		if b.Size != int64(n) || b.MD5 != md5.Sum(data) || b.CRC64 != crc64.Checksum(data, ecma) {
			t.Errorf("%d bytes: %+v", n, b)
		}
		o, err := s.MakeBucket("b").Put("k", b, nil, true)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(o.Read(0, o.Size)); err != nil || !bytes.Equal(got, data) {
			t.Errorf("read %d of %d bytes, %v", len(got), n, err)
		}
	}
	if _, err := s.Receive(bytes.NewReader(make([]byte, 1<<20+1))); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a body that is too large: %v", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("the directory has %v, %v", left, err)
	}
}

func TestMultipart(t *testing.T) {
	s := New(t.TempDir(), limits)
	b := s.MakeBucket("b")
	u := b.Create("k", Meta{"content-type": "text/plain"})
	var data []byte
	var told []Part
	for i, n := range []int{10, 300_000, 50, 3} {
		body := random(n)
		p, err := b.PutPart("k", u.ID, i*2+1, receive(t, s, body))
		if err != nil {
			t.Fatal(err)
		}
		data = append(data, body...)
		told = append(told, Part{Number: p.Number, ETag: p.ETag})
	}
	wrong := slices.Clone(told)
	wrong[1].ETag = told[0].ETag
	for name, test := range map[string]struct {
		parts []Part
		want  error
	}{
		"none":       {nil, ErrPart},
		"order":      {[]Part{told[1], told[0]}, ErrPartOrder},
		"twice":      {[]Part{told[0], told[0]}, ErrPartOrder},
		"another":    {wrong, ErrPart},
		"not there":  {append(slices.Clone(told[:3]), Part{Number: 9, ETag: told[0].ETag}), ErrPart},
		"small ones": {append(slices.Clone(told), mustPut(t, s, b, u.ID, 10)), ErrPartTooSmall},
	} {
		if _, err := b.Complete("k", u.ID, test.parts, true); !errors.Is(err, test.want) {
			t.Errorf("complete with parts %s: %v, want %v", name, err, test.want)
		}
	}
	o, err := b.Complete("k", u.ID, told, true)
	if err != nil {
		t.Fatal(err)
	}
	if o.Size != int64(len(data)) || o.CRC64 != crc64.Checksum(data, ecma) || o.Meta["content-type"] != "text/plain" {
		t.Errorf("the object is %+v", o)
	}
	for _, r := range [][2]int64{{0, o.Size}, {0, 1}, {9, 2}, {10, 300_000}, {5, 300_040}, {o.Size - 1, 1}, {o.Size, 0}} {
		if got, err := io.ReadAll(o.Read(r[0], r[1])); err != nil || !bytes.Equal(got, data[r[0]:r[0]+r[1]]) {
			t.Errorf("range %v: %d bytes, %v", r, len(got), err)
		}
	}
	if _, err := b.Complete("k", u.ID, told, true); !errors.Is(err, ErrNoUpload) {
		t.Errorf("complete again: %v", err)
	}
	u = b.Create("k", nil)
	told = []Part{mustPut(t, s, b, u.ID, 1)}
	if _, err := b.Complete("k", u.ID, told, false); !errors.Is(err, ErrExists) {
		t.Errorf("complete where there is an object: %v", err)
	}
	if err := b.Abort("k", u.ID); err != nil {
		t.Error(err)
	}
	if _, err := b.PutPart("k", u.ID, 1, receive(t, s, nil)); !errors.Is(err, ErrNoUpload) {
		t.Errorf("a part after abort: %v", err)
	}
	for _, number := range []int{0, -1, 21} {
		if _, err := b.PutPart("k", b.Create("k", nil).ID, number, receive(t, s, nil)); !errors.Is(err, ErrPartNumber) {
			t.Errorf("part %d: %v", number, err)
		}
	}
}

func mustPut(t *testing.T, s *Storage, b *Bucket, id string, number int) Part {
	t.Helper()
	p, err := b.PutPart("k", id, number, receive(t, s, []byte("small")))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// Listings page by page have each entry once.
func TestPages(t *testing.T) {
	s := New(t.TempDir(), limits)
	b := s.MakeBucket("b")
	blob := receive(t, s, []byte("x"))
	var ids []string
	for i := range 7 {
		if _, err := b.Put(fmt.Sprintf("a/%d", i), blob, nil, true); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, b.Create("a/"+hex.EncodeToString([]byte{byte(i / 2)}), nil).ID)
	}
	_, _ = b.Put("b", blob, nil, true)
	b.Create("b", nil)
	var keys, got []string
	for after, more := "", true; more; after = keys[len(keys)-1] {
		var page []*Object
		page, more = b.Objects("a/", after, 3)
		for _, o := range page {
			keys = append(keys, o.Key)
		}
	}
	if len(keys) != 7 || !slices.IsSorted(keys) {
		t.Errorf("listed %v", keys)
	}
	var last Upload
	for more := true; more; {
		var page []Upload
		page, more = b.Uploads("a/", last.Key, last.ID, 3)
		for _, u := range page {
			got = append(got, u.ID)
			last = u
		}
	}
	if !slices.Equal(got, ids) {
		t.Errorf("uploads %v, want %v", got, ids)
	}
	for i := range 7 {
		mustPart(t, b, ids[0], i+1, blob)
	}
	var numbers []int
	for after, more := 0, true; more; after = numbers[len(numbers)-1] {
		page, m, err := b.Parts("a/00", ids[0], after, 3)
		if err != nil {
			t.Fatal(err)
		}
		more = m
		for _, p := range page {
			numbers = append(numbers, p.Number)
		}
	}
	if !slices.Equal(numbers, []int{1, 2, 3, 4, 5, 6, 7}) {
		t.Errorf("parts %v", numbers)
	}
}

func mustPart(t *testing.T, b *Bucket, id string, number int, blob *Blob) {
	t.Helper()
	if _, err := b.PutPart("a/00", id, number, blob); err != nil {
		t.Fatal(err)
	}
}
