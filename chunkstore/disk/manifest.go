package disk

import (
	"bytes"
	"encoding/json"
	"fmt"
	"hash/crc32"

	"gantry/upload"
)

// manifestVersion is the form of manifest and journal that this package writes.
const manifestVersion = 1

// maxManifest bounds what is read as a manifest, bytes.
const maxManifest = 1 << 20

// manifest is a file of two lines: this as JSON, and "crc32c <8 hex digits>" of that line with its
// newline. It is written once, so a process that died while writing leaves one that does not check.
type manifest struct {
	Version int         `json:"version"`
	Upload  upload.Spec `json:"upload"`
}

func encodeManifest(spec *upload.Spec) ([]byte, error) {
	text, err := json.Marshal(manifest{Version: manifestVersion, Upload: *spec})
	if err != nil {
		return nil, err
	}
	text = append(text, '\n')
	return fmt.Appendf(text, "crc32c %08x\n", crc32.Checksum(text, upload.Castagnoli)), nil
}

// parseManifest reads the manifest of upload id. It accepts any bytes.
func parseManifest(text []byte, id string) (upload.Spec, error) {
	line, sum, found := bytes.Cut(text, []byte("\n"))
	if !found {
		return upload.Spec{}, fmt.Errorf("the manifest is cut off")
	}
	want := fmt.Sprintf("crc32c %08x\n", crc32.Checksum(text[:len(line)+1], upload.Castagnoli))
	if string(sum) != want {
		return upload.Spec{}, fmt.Errorf("the manifest's checksum is wrong")
	}
	var m manifest
	if err := json.Unmarshal(line, &m); err != nil {
		return upload.Spec{}, fmt.Errorf("the manifest is not readable: %w", err)
	}
	if m.Version != manifestVersion {
		return upload.Spec{}, fmt.Errorf("the manifest has version %d, this program knows %d", m.Version, manifestVersion)
	}
	if m.Upload.ID != id {
		return upload.Spec{}, fmt.Errorf("the manifest is that of upload %q", m.Upload.ID)
	}
	return m.Upload, checkSpec(&m.Upload)
}

// checkSpec refuses what the layout on disk cannot hold.
func checkSpec(spec *upload.Spec) error {
	const op = "chunkstore.Create"
	if _, ok := upload.ParseUploadID(spec.ID); !ok {
		return upload.Errorf(upload.Invalid, op, spec.ID, "This is not the id of an upload.")
	}
	if spec.ChunkSize < 1 || spec.ChunkSize > upload.MaxChunkSize {
		return upload.Errorf(upload.InvalidSize, op, spec.ID, "Chunks have between 1 and %d bytes.", upload.MaxChunkSize)
	}
	if spec.Size != upload.UnknownSize && (spec.Size < 0 || spec.Size > spec.ChunkSize*upload.MaxChunks) {
		return upload.Errorf(upload.InvalidSize, op, spec.ID, "A file has between 0 and %d bytes with chunks of %d.",
			spec.ChunkSize*upload.MaxChunks, spec.ChunkSize)
	}
	return nil
}
