package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"gantry/upload"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// object is a store of one object, of which only what ReadBack needs is there.
type object struct {
	Store
	data []byte
	body func(ctx context.Context, offset int64, whole io.Reader) (io.Reader, error) // nil: the object's bytes
	fail error                                                                       // of Close

	mu               sync.Mutex
	open, most, left int // bodies; left: opened and not closed
}

func (o *object) Size(context.Context, string) (int64, error) { return int64(len(o.data)), nil }

func (o *object) Open(ctx context.Context, _ string, offset, length int64) (io.ReadCloser, error) {
	o.mu.Lock()
	o.open++
	o.left++
	o.most = max(o.most, o.left)
	o.mu.Unlock()
	r := io.Reader(bytes.NewReader(o.data[offset : offset+length]))
	if o.body != nil {
		var err error
		if r, err = o.body(ctx, offset, r); err != nil {
			o.closed()
			return nil, err
		}
	}
	return body{r, o}, nil
}

func (o *object) closed() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.left--
}

type body struct {
	io.Reader
	object *object
}

func (b body) Close() error {
	b.object.closed()
	return b.object.fail
}

func random(n int) []byte {
	data := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(n)}).Read(data)
	return data
}

func digestsOf(data []byte) Digests {
	d := NewDigester(true)
	_, _ = d.Write(data)
	return d.Sum()
}

// ways are those of reading an object, both with readBlock bytes in each request.
var ways = map[string]func(ctx context.Context, o *object, want Digests) error{
	"striped": func(ctx context.Context, o *object, want Digests) error {
		crc, err := striped(ctx, o, "k", want.Size, readBlock)
		if err == nil && crc != want.CRC32C {
			err = upload.DigestMismatch
		}
		return err
	},
	"in order": func(ctx context.Context, o *object, want Digests) error {
		d := NewDigester(true)
		if err := ReadInOrder(ctx, o, "k", want.Size, d); err != nil {
			return err
		}
		return want.Compare("test", "k", d.Sum())
	},
}

// inEachWay runs a test in each way of reading.
func inEachWay(t *testing.T, test func(t *testing.T, read func(ctx context.Context, o *object, want Digests) error)) {
	t.Helper()
	for name, read := range ways {
		t.Run(name, func(t *testing.T) { test(t, read) })
	}
}

// some is larger than all that is read at a time.
const some = (streams+2)*readBlock + 12345

var (
	someData    = sync.OnceValue(func() []byte { return random(some) })
	someDigests = sync.OnceValue(func() Digests { return digestsOf(someData()) })
)

func TestReadSizes(t *testing.T) {
	inEachWay(t, func(t *testing.T, read func(ctx context.Context, o *object, want Digests) error) {
		for _, size := range []int{
			0, 1, readLookout - 1, readLookout, readLookout + 1, readBlock - 1, readBlock, readBlock + 1, 2 * readBlock,
			streams*readBlock - 1, (readAhead + 1) * readBlock, streams*readBlock + 1, some,
		} {
			o := &object{data: random(size)}
			if err := read(t.Context(), o, digestsOf(o.data)); err != nil {
				t.Errorf("%d bytes: %v", size, err)
			}
			if want := (size + readBlock - 1) / readBlock; o.open != want || o.left != 0 {
				t.Errorf("%d bytes: %d ranges, want %d; %d are open", size, o.open, want, o.left)
			}
		}
	})
}

// However the bytes come, they are the same.
func TestReadShortReads(t *testing.T) {
	inEachWay(t, func(t *testing.T, read func(ctx context.Context, o *object, want Digests) error) {
		for name, reader := range map[string]func(io.Reader) io.Reader{
			"halves": iotest.HalfReader, "the end with the data": iotest.DataErrReader,
			"byte by byte": func(r io.Reader) io.Reader {
				return io.MultiReader(iotest.OneByteReader(io.LimitReader(r, 1000)), r)
			},
		} {
			o := &object{data: someData(), body: func(_ context.Context, _ int64, r io.Reader) (io.Reader, error) { return reader(r), nil }}
			if err := read(t.Context(), o, someDigests()); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

// Ranges that come in any order are put in order, several come at a time, and there are no more than blocks.
func TestReadOrder(t *testing.T) {
	inEachWay(t, func(t *testing.T, read func(ctx context.Context, o *object, want Digests) error) {
		synctest.Test(t, func(t *testing.T) {
			o := &object{data: someData()}
			o.body = func(_ context.Context, offset int64, r io.Reader) (io.Reader, error) {
				time.Sleep(time.Duration(7-offset/readBlock*3%7) * time.Second)
				return r, nil
			}
			if err := read(t.Context(), o, someDigests()); err != nil {
				t.Error(err)
			}
			if o.most != streams {
				t.Errorf("%d ranges were under way, want %d", o.most, streams)
			}
		})
	})
}

// Any other bytes are a mismatch, wherever they are.
func TestReadMismatch(t *testing.T) {
	inEachWay(t, func(t *testing.T, read func(ctx context.Context, o *object, want Digests) error) {
		for _, at := range []int{0, readBlock - 1, readBlock, some / 2, some - 1} {
			o := &object{data: bytes.Clone(someData())}
			o.data[at] ^= 1
			if err := read(t.Context(), o, someDigests()); !errors.Is(err, upload.DigestMismatch) {
				t.Errorf("a bit at %d: %v", at, err)
			}
		}
	})
}

func TestReadBack(t *testing.T) {
	data, want := someData(), someDigests()
	if err := ReadBack(t.Context(), &object{data: data}, "k", want); err != nil {
		t.Error(err)
	}
	for _, other := range [][]byte{data[:some-1], append(bytes.Clone(data), 0), nil} {
		o := &object{data: other}
		if err := ReadBack(t.Context(), o, "k", want); !errors.Is(err, upload.DigestMismatch) || o.open > 0 {
			t.Errorf("%d bytes: %v, and %d ranges were read", len(other), err, o.open)
		}
	}
	want.CRC32C ^= 1
	err := ReadBack(t.Context(), &object{data: data}, "k", want)
	if e, ok := errors.AsType[*upload.Error](err); !ok || !errors.Is(err, upload.DigestMismatch) || e.Want == "" || e.Want == e.Got || e.Detail == "" {
		t.Errorf("another CRC: %v", err)
	}
}

func TestCompare(t *testing.T) {
	got, other := digestsOf(random(100)), uint64(1)
	for name, change := range map[string]func(d *Digests){
		"size": func(d *Digests) { d.Size++ }, "root": func(d *Digests) { d.Root[0] ^= 1 },
		"crc32c": func(d *Digests) { d.CRC32C ^= 1 }, "crc64": func(d *Digests) { d.CRC64 = &other },
	} {
		want := got
		change(&want)
		err := want.Compare("test", "k", got)
		if e, ok := errors.AsType[*upload.Error](err); !ok || !errors.Is(err, upload.DigestMismatch) || e.Want == "" || e.Want == e.Got || e.Detail == "" {
			t.Errorf("another %s does not say what: %v", name, err)
		}
	}
	without := got
	if without.CRC64 = nil; got.Compare("test", "k", got) != nil || without.Compare("test", "k", got) != nil {
		t.Error("the same is not the same")
	}
}

// A failure in the middle is the error, with its kind, and leaves nothing open.
func TestReadFailures(t *testing.T) {
	inEachWay(t, func(t *testing.T, read func(ctx context.Context, o *object, want Digests) error) {
		broken := errors.New("the connection broke")
		for name, test := range map[string]struct {
			body func(r io.Reader) (io.Reader, error)
			want error
		}{
			"open fails": {func(io.Reader) (io.Reader, error) { return nil, upload.NotFound }, upload.NotFound},
			"read fails": {func(r io.Reader) (io.Reader, error) {
				return io.MultiReader(io.LimitReader(r, 100), iotest.ErrReader(broken)), nil
			}, broken},
			"it ends early":   {func(r io.Reader) (io.Reader, error) { return io.LimitReader(r, readBlock-1), nil }, upload.Unavailable},
			"there is none":   {func(io.Reader) (io.Reader, error) { return bytes.NewReader(nil), nil }, upload.Unavailable},
			"others are slow": {func(io.Reader) (io.Reader, error) { return nil, upload.Invalid }, upload.Invalid},
		} {
			for _, block := range []int64{0, 2, readAhead + 2} {
				o := &object{data: someData()}
				o.body = func(ctx context.Context, offset int64, r io.Reader) (io.Reader, error) {
					if offset == block*readBlock {
						return test.body(r)
					}
					if offset > block*readBlock && name == "others are slow" {
						<-ctx.Done()
						return nil, ctx.Err()
					}
					return r, nil
				}
				err := read(t.Context(), o, someDigests())
				if !errors.Is(err, test.want) || errors.Is(err, upload.DigestMismatch) || o.left != 0 {
					t.Errorf("%s, block %d: %v; %d are open", name, block, err, o.left)
				}
			}
		}
		o := &object{data: random(100), fail: broken}
		if err := read(t.Context(), o, digestsOf(o.data)); !errors.Is(err, broken) {
			t.Errorf("Close fails: %v", err)
		}
	})
}

func TestReadCanceled(t *testing.T) {
	inEachWay(t, func(t *testing.T, read func(ctx context.Context, o *object, want Digests) error) {
		for name, reader := range map[string]func(ctx context.Context, r io.Reader) (io.Reader, error){
			"opening": func(ctx context.Context, _ io.Reader) (io.Reader, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			},
			"reading": func(_ context.Context, r io.Reader) (io.Reader, error) { return r, nil }, // which does not look at the context
		} {
			ctx, cancel := context.WithCancel(t.Context())
			o := &object{data: someData()}
			o.body = func(ctx context.Context, offset int64, r io.Reader) (io.Reader, error) {
				if offset == readBlock {
					cancel()
				}
				return reader(ctx, r)
			}
			if err := read(ctx, o, digestsOf(o.data)); !errors.Is(err, context.Canceled) || o.left != 0 {
				t.Errorf("cancelled while %s: %v; %d are open", name, err, o.left)
			}
			cancel()
		}
	})
}

// BenchmarkDigester is what reading in order can reach at best on this machine.
func BenchmarkDigester(b *testing.B) {
	block := random(readBlock)
	for _, withCRC64 := range []bool{false, true} {
		b.Run(fmt.Sprint("crc64=", withCRC64), func(b *testing.B) {
			b.SetBytes(readBlock)
			d := NewDigester(withCRC64)
			for b.Loop() {
				_, _ = d.Write(block)
			}
		})
	}
}
