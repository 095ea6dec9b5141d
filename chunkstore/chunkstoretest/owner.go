package chunkstoretest

import (
	"sync"
	"time"

	"gantry/upload"
)

// Owner is an upload on its owner node, without a disk: what chunkstore.Truth asks.
type Owner struct {
	mu    sync.Mutex
	u     upload.Upload
	ended bool
	TTL   time.Duration // until the upload expires
}

// NewOwner opens an upload of count chunks.
func NewOwner(count int64) *Owner {
	spec := NewSpec(count*chunkSize, chunkSize)
	spec.Key = "" // keys are claimed, and owners here have one name
	return &Owner{u: upload.Upload{Spec: spec, Size: spec.Size, UpdatedAt: spec.CreatedAt}, TTL: time.Hour}
}

// Spec is what is known from the beginning.
func (o *Owner) Spec() *upload.Spec { return &o.u.Spec }

// Take has a chunk come in, as Staging.WriteChunk does.
func (o *Owner) Take(index int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.u.Received.Add(index) {
		o.u.ReceivedBytes += chunkSize
		o.u.UpdatedAt = o.u.UpdatedAt.Add(time.Millisecond)
	}
	for o.u.Received.Has(int(o.u.HashedBytes / chunkSize)) {
		o.u.HashedBytes += chunkSize
	}
}

// Void has a chunk turn out damaged.
func (o *Owner) Void(index int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.u.Received = o.u.Received.Clone()
	if o.u.Received.Remove(index) {
		o.u.ReceivedBytes -= chunkSize
		o.u.HashedBytes = min(o.u.HashedBytes, int64(index)*chunkSize)
	}
}

// End has the upload end.
func (o *Owner) End() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ended = true
}

// Upload is the upload as it stands.
func (o *Owner) Upload() upload.Upload {
	u, _, _ := o.Truth(o.u.ID)
	return u
}

// Truth is a chunkstore.Truth.
func (o *Owner) Truth(id string) (upload.Upload, time.Duration, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if id != o.u.ID || o.ended {
		return upload.Upload{}, 0, upload.Errorf(upload.NotFound, "", id, "There is no such upload.")
	}
	u := o.u
	u.Received = o.u.Received.Clone()
	return u, o.TTL, nil
}
