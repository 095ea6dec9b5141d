-- What happened lately, for those who follow an owner's files.

-- +goose Up
CREATE INDEX files_updated ON files (owner, updated_at, id);
CREATE INDEX transfers_updated ON transfers (updated_at, blob_id);

CREATE TABLE deleted_files (
  id         TEXT    NOT NULL PRIMARY KEY,
  owner      TEXT    NOT NULL,
  deleted_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX deleted_files_at ON deleted_files (deleted_at);
