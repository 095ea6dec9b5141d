package upload

import "time"

// State is where an upload stands.
type State string

// The states of an upload. Only an open upload takes chunks; the other states are final.
const (
	Open      State = "open"
	Complete  State = "complete"  // it became a file
	Cancelled State = "cancelled" // by its owner
	Expired   State = "expired"   // nothing came for too long
	Rejected  State = "rejected"  // its bytes were not those announced
)

// CanBecome reports whether an upload may go from state s to next.
func (s State) CanBecome(next State) bool { return s == Open && next != Open }

// Spec is what init decided about an upload. It never changes; on disk it is the manifest.
type Spec struct {
	ID          string            `json:"id"`
	Owner       string            `json:"owner"`
	Name        string            `json:"name"`
	Path        string            `json:"path,omitempty"`
	ContentType string            `json:"content_type,omitempty"`
	Metadata    map[string]string `json:"metadata,omitempty"`
	Size        int64             `json:"size"` // UnknownSize: given at complete
	ChunkSize   int64             `json:"chunk_size"`
	SHA1        SHA1              `json:"sha1,omitzero"`         // as announced by the client; zero: not announced
	Replaces    string            `json:"replaces,omitempty"`    // the file whose content this becomes
	Key         string            `json:"key,omitempty"`         // Idempotency-Key of init
	Fingerprint string            `json:"fingerprint,omitempty"` // of the request that Key stands for
	CreatedAt   time.Time         `json:"created_at"`
}

// Upload is an open upload as it stands.
type Upload struct {
	Spec
	Size          int64 // Spec.Size, or what a short last chunk has shown it to be
	Received      ChunkSet
	ReceivedBytes int64
	HashedBytes   int64     // the contiguous prefix whose SHA-1 is known
	UpdatedAt     time.Time // when the last chunk was acknowledged
	Sealed        bool      // complete was called: it takes no more chunks
}

// Layout is how the upload is cut.
func (u *Upload) Layout() Layout { return Layout{Size: u.Size, ChunkSize: u.ChunkSize} }

// Missing lists the chunks still to come. While the size is unknown these are the gaps below the
// highest chunk received.
func (u *Upload) Missing() []Range {
	if u.Size < 0 {
		return u.Received.Missing(u.Received.Last() + 1)
	}
	return u.Received.Missing(u.Layout().Count())
}

// Sealed is what the bytes of an upload turned out to be once all are there and on stable storage.
type Sealed struct {
	Size   int64
	SHA1   SHA1
	Hint   SHA1   // SHA-1 of the first HintLength bytes
	CRC32C uint32 // of the whole content
}
