package disk

import (
	"context"

	"gantry/chunkstore"
	"gantry/internal/vfs"
	"gantry/upload"
)

// Reader reads the data of blobs in the staging directory of a node that is another process. It changes
// nothing there, and takes no notice of journals: it cannot tell a blob from an upload that is still
// open, so it is asked only for what the database says is a blob.
type Reader struct{ fs vfs.FS }

// NewReader returns a Reader of the directory in which the other process has a Staging.
func NewReader(fsys vfs.FS) *Reader { return &Reader{fsys} }

// Open is as chunkstore.Staging's, for what was sealed.
func (r *Reader) Open(_ context.Context, id string) (chunkstore.Content, error) {
	const op = "chunkstore.Open"
	if _, ok := upload.ParseUploadID(id); !ok {
		return nil, notFound(op, id)
	}
	c, err := openData(op, r.fs, id, -1)
	if err != nil {
		return nil, err
	}
	return &sealedContent{*c}, nil
}
