// Package local keeps objects as files in a directory of this machine, "<aa>/<rest>" for the key of
// that name. An object on the same file system as the staging directory is a second name of the
// staged file: it costs no copy.
package local

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"iter"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"gantry/internal/vfs"
	"gantry/store"
	"gantry/upload"
)

const (
	tempPrefix = ".tmp-"  // of files that are not objects; they are in the root of the tree
	bufferSize = 1 << 20  // of one step of copying or reading back, bytes
	flushEvery = 16 << 20 // a copy begins to write back this often, so that the last Sync is short

	dirMode  = 0o700
	fileMode = 0o600
)

// Store is a directory of objects. It is made by Open and is safe for concurrent use.
type Store struct {
	fs    vfs.FS
	mine  string   // what the names of this writer's temporary files begin with
	dirs  [256]dir // by the first byte of the key, in hex
	temps sync.Map // names of the temporary files of this process: not garbage
}

var _ store.Store = (*Store)(nil)

// Open returns the store in a tree, which must be there and have nothing else in it. Several nodes may
// have one tree (a shared file system); writer is this node's id.
func Open(tree vfs.FS, writer string) (*Store, error) {
	if _, err := tree.ReadDir("."); err != nil {
		return nil, upload.Wrap(upload.Invalid, "local.Open", "", fmt.Errorf("cannot read the store's directory: %w", err))
	}
	s := &Store{fs: tree, mine: tempPrefix + writer + "-"}
	for i := range s.dirs {
		s.dirs[i].name = fmt.Sprintf("%02x", i)
	}
	return s, nil
}

// Put gives the content's file a second name where it can, and copies it otherwise. What a power cut
// leaves is the whole object or none.
func (s *Store) Put(ctx context.Context, key string, content store.Content, opt store.PutOptions) error {
	const op = "local.Put"
	d, err := s.dirOf(key)
	if err != nil {
		return err
	}
	if err = d.make(s.fs); err == nil {
		err = s.write(ctx, key, content, opt.Progress)
	}
	if err == nil {
		err = d.sync(s.fs)
	}
	if errors.Is(err, fs.ErrNotExist) {
		d.forget() // somebody deleted the directory: the next try makes it again
		err = upload.Wrap(upload.Unavailable, op, key, err)
	}
	if err == nil && opt.Progress != nil {
		opt.Progress(content.Size())
	}
	return classify(op, key, err)
}

func (s *Store) write(ctx context.Context, key string, content store.Content, progress func(sent int64)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	linked, err := s.link(key, content)
	if err != nil || linked {
		return err
	}
	return s.copy(ctx, key, content, progress)
}

// link makes key another name of the content's file. It reports false where that cannot be done.
func (s *Store) link(key string, content store.Content) (bool, error) {
	linker, ok := s.fs.(vfs.Linker)
	if !ok {
		return false, nil
	}
	filer, ok := content.(store.Filer)
	if !ok {
		return false, nil
	}
	file := filer.File()
	info, err := file.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Size() != content.Size() {
		return false, err
	}
	err = linker.LinkFrom(file, key)
	if err == nil {
		return true, nil
	}
	if !errors.Is(err, fs.ErrExist) {
		return false, nil //nolint:nilerr // another file system, a full inode, a staging copy just dropped: copying will tell
	}
	old, err := s.fs.Stat(key)
	if err != nil {
		return false, err
	}
	if os.SameFile(old, info) {
		// Put before, by this worker or by one that lost its lease. Renaming over it would do nothing
		// (POSIX) and leave the temporary name.
		return true, nil
	}
	temp := s.newTemp()
	defer s.temps.Delete(temp)
	if err := linker.LinkFrom(file, temp); err != nil {
		return false, nil //nolint:nilerr // as above
	}
	if err := s.fs.Rename(temp, key); err != nil {
		return false, errors.Join(err, s.fs.Remove(temp))
	}
	return true, nil
}

// copy writes a temporary file, makes it durable and gives it its name.
func (s *Store) copy(ctx context.Context, key string, content store.Content, progress func(sent int64)) (err error) {
	temp := s.newTemp()
	defer s.temps.Delete(temp)
	f, err := s.fs.OpenFile(temp, vfs.ReadWrite|vfs.Create|vfs.Excl, fileMode)
	if err != nil {
		return err
	}
	err = fill(ctx, f, content, progress)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = s.fs.Rename(temp, key)
	}
	if err != nil {
		return errors.Join(err, s.fs.Remove(temp))
	}
	return nil
}

func fill(ctx context.Context, f vfs.File, content store.Content, progress func(sent int64)) error {
	size := content.Size()
	var flushed int64
	err := eachBlock(ctx, content, size, func(off int64, block []byte) error {
		if _, err := f.WriteAt(block, off); err != nil {
			return err
		}
		sent := off + int64(len(block))
		if sent-flushed >= flushEvery {
			f.Flush(flushed, sent-flushed)
			flushed = sent
		}
		if progress != nil && sent < size {
			progress(sent)
		}
		return nil
	})
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() != size {
		return fmt.Errorf("the copy has %d bytes instead of %d", info.Size(), size)
	}
	return nil
}

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// eachBlock reads size bytes of r from the beginning, block by block.
func eachBlock(ctx context.Context, r io.ReaderAt, size int64, f func(off int64, block []byte) error) error {
	buffer := buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(buffer)
	for off := int64(0); off < size; off += bufferSize {
		if err := ctx.Err(); err != nil {
			return err
		}
		block := buffer[:min(bufferSize, size-off)]
		if n, err := r.ReadAt(block, off); n < len(block) {
			if err == nil || errors.Is(err, io.EOF) {
				err = fmt.Errorf("the content ends after %d of %d bytes: %w", off+int64(n), size, io.ErrUnexpectedEOF)
			}
			return err
		}
		if err := f(off, block); err != nil {
			return err
		}
	}
	return nil
}

// Verify reads the object back, unless it is another name of the very file that the digests were just
// computed from: the same inode has the same bytes.
func (s *Store) Verify(ctx context.Context, key string, want store.Digests) error {
	const op = "local.Verify"
	info, err := s.stat(key)
	if err != nil {
		return classify(op, key, err)
	}
	if info.Size() != want.Size {
		return store.Mismatch(op, key, fmt.Sprintf("%d bytes", want.Size), fmt.Sprintf("%d bytes", info.Size()))
	}
	if filer, ok := want.Source.(store.Filer); ok {
		if source, err := filer.File().Stat(); err == nil && os.SameFile(source, info) {
			return nil
		}
	}
	f, err := s.fs.OpenFile(key, vfs.ReadOnly, 0)
	if err != nil {
		return classify(op, key, err)
	}
	defer f.Close()
	var tree upload.TreeHasher
	var crc uint32
	err = eachBlock(ctx, f, want.Size, func(_ int64, block []byte) error {
		crc = crc32.Update(crc, upload.Castagnoli, block)
		_, err := tree.Write(block)
		return err
	})
	if err != nil {
		return classify(op, key, err)
	}
	if crc != want.CRC32C {
		return store.Mismatch(op, key, fmt.Sprintf("crc32c %08x", want.CRC32C), fmt.Sprintf("crc32c %08x", crc))
	}
	if root := tree.Root(); root != want.Root {
		return store.Mismatch(op, key, "root "+want.Root.String(), "root "+root.String())
	}
	return nil
}

// stat describes an object. Symbolic links and other strange things are refused.
func (s *Store) stat(key string) (fs.FileInfo, error) {
	if _, err := s.dirOf(key); err != nil {
		return nil, err
	}
	info, err := s.fs.Stat(key)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, upload.Errorf(upload.Invalid, "", key, "The object's name in the store's directory is not a regular file.")
	}
	return info, nil
}

// Open reads a part of an object. Deleting the object does not disturb the reader.
func (s *Store) Open(_ context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	const op = "local.Open"
	if _, err := s.dirOf(key); err != nil {
		return nil, err
	}
	f, err := s.fs.OpenFile(key, vfs.ReadOnly, 0) // regular files only
	if err != nil {
		return nil, classify(op, key, err)
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(classify(op, key, err), f.Close())
	}
	rest := info.Size() - offset
	if offset < 0 || rest < 0 || length < -1 {
		return nil, errors.Join(upload.Errorf(upload.BadRange, op, key, "The object has %d bytes.", info.Size()), f.Close())
	}
	if length == -1 || length > rest {
		length = rest
	}
	return &reader{io.NewSectionReader(f, offset, length), f}, nil
}

type reader struct {
	*io.SectionReader
	io.Closer
}

// Size returns an object's length.
func (s *Store) Size(_ context.Context, key string) (int64, error) {
	info, err := s.stat(key)
	if err != nil {
		return 0, classify("local.Size", key, err)
	}
	return info.Size(), nil
}

// Delete removes an object's name. It does not wait for the disk: a name that a power cut brings back
// belongs to no blob, and is found as such.
func (s *Store) Delete(_ context.Context, key string) error {
	if _, err := s.dirOf(key); err != nil {
		return err
	}
	if err := s.fs.Remove(key); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return classify("local.Delete", key, err)
	}
	return nil
}

// List goes through the objects directory by directory. What is not an object is passed over.
func (s *Store) List(ctx context.Context) iter.Seq2[store.Object, error] {
	return func(yield func(store.Object, error) bool) {
		for i := range s.dirs {
			name := s.dirs[i].name
			entries, err := s.fs.ReadDir(name)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				yield(store.Object{}, classify("local.List", name, err))
				return
			}
			for _, entry := range entries {
				key := name + "/" + entry.Name()
				if _, err := s.dirOf(key); err != nil || !entry.Type().IsRegular() {
					continue
				}
				info, err := entry.Info()
				if errors.Is(err, fs.ErrNotExist) {
					continue // deleted meanwhile
				}
				if err != nil {
					yield(store.Object{}, classify("local.List", key, err))
					return
				}
				if !yield(store.Object{Key: key, Size: info.Size(), Unix: info.ModTime().Unix()}, nil) {
					return
				}
			}
		}
	}
}

// staleTemp is when a temporary file is garbage whoever wrote it: no Put lasts that long.
const staleTemp = 7 * 24 * time.Hour

// Clean deletes the temporary files of processes of this node that are gone, and very old ones of other
// nodes. It may run beside Puts of this process.
func (s *Store) Clean(ctx context.Context) error {
	const op = "local.Clean"
	entries, err := s.fs.ReadDir(".")
	if err != nil {
		return classify(op, "", err)
	}
	for _, entry := range entries {
		if err := ctx.Err(); err != nil {
			return classify(op, "", err)
		}
		if _, used := s.temps.Load(entry.Name()); used || !strings.HasPrefix(entry.Name(), tempPrefix) {
			continue
		}
		if !strings.HasPrefix(entry.Name(), s.mine) {
			if info, err := entry.Info(); err != nil || time.Since(info.ModTime()) < staleTemp {
				continue // another node may be at work on it
			}
		}
		if err := s.fs.Remove(entry.Name()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return classify(op, entry.Name(), err)
		}
	}
	return nil
}

// newTemp returns a name for a temporary file. The caller forgets it in s.temps.
func (s *Store) newTemp() string {
	name := s.mine + rand.Text()
	s.temps.Store(name, nil)
	return name
}

// dirOf returns the directory of a key. It refuses all that could be something else than a name in it.
func (s *Store) dirOf(key string) (*dir, error) {
	first, rest, ok := strings.Cut(key, "/")
	high, okHigh := hexDigit(first, 0)
	low, okLow := hexDigit(first, 1)
	if !ok || !okHigh || !okLow || len(first) != 2 || !isName(rest) {
		return nil, upload.Errorf(upload.Invalid, "local", "", "%q is not an object key.", key)
	}
	return &s.dirs[high<<4|low], nil
}

func hexDigit(s string, i int) (int, bool) {
	if i >= len(s) {
		return 0, false
	}
	v := strings.IndexByte("0123456789abcdef", s[i])
	return v, v >= 0
}

// isName accepts letters, digits and "-", up to a length that every file system takes.
func isName(s string) bool {
	for i := range len(s) {
		if c := s[i]; !('0' <= c && c <= '9' || 'a' <= c && c <= 'z' || c == '-') {
			return false
		}
	}
	return 0 < len(s) && len(s) <= 200
}

// classify gives an error its kind. A disk that fails may be mended, so that all but a full one is
// Unavailable; an error that has a kind keeps it.
func classify(op, key string, err error) error {
	kind := upload.Unavailable
	switch {
	case errors.Is(err, fs.ErrNotExist):
		kind = upload.NotFound
	case errors.Is(err, fs.ErrInvalid): // not a regular file
		kind = upload.Invalid
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		kind = upload.NoRoom
	case errors.Is(err, context.Canceled):
		kind = upload.Canceled
	case errors.Is(err, context.DeadlineExceeded):
		kind = upload.Timeout
	}
	return upload.Wrap(kind, op, key, err)
}
