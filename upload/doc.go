// Package upload is Gantry's vocabulary: what an upload, a chunk, a blob and a file are, which
// states they go through, how content is digested and proved, and which kinds of error there are.
//
// It imports the standard library only and does no I/O; every other package speaks in its terms.
//
//   - An upload (upload session) is one attempt to bring one file in. It is cut into chunks.
//   - A blob is stored content, known by its digests and shared by any number of files.
//   - A file is one owner's named reference to a blob.
//   - A transfer moves a blob from a node's staging directory to a store.
package upload
