-- Uploads whose bytes clients send to a store by themselves. The other open uploads are on the nodes' disks.

-- +goose Up
CREATE TABLE direct_uploads (
  id           TEXT    NOT NULL PRIMARY KEY,
  owner        TEXT    NOT NULL,
  idem_key     TEXT, -- NULL from the end on
  spec         TEXT    NOT NULL, -- JSON of upload.Spec
  blob_id      TEXT    NOT NULL, -- of the blob that it is to become
  store        TEXT    NOT NULL,
  object_key   TEXT    NOT NULL,
  multipart_id TEXT    NOT NULL,
  created_at   INTEGER NOT NULL,
  updated_at   INTEGER NOT NULL,
  ended_at     INTEGER -- without a file of its own: what is in the store is to be deleted
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX direct_key ON direct_uploads (owner, idem_key) WHERE idem_key IS NOT NULL;
CREATE UNIQUE INDEX direct_blob ON direct_uploads (blob_id);
CREATE INDEX direct_owner ON direct_uploads (owner, id);
CREATE INDEX direct_updated ON direct_uploads (updated_at);
CREATE INDEX direct_ended ON direct_uploads (ended_at) WHERE ended_at IS NOT NULL;
