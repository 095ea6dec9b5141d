-- +goose Up
CREATE INDEX files_updated ON files (owner, updated_at, id);
CREATE INDEX transfers_updated ON transfers (updated_at, blob_id);

CREATE TABLE deleted_files (
  id         TEXT COLLATE "C" NOT NULL PRIMARY KEY,
  owner      TEXT COLLATE "C" NOT NULL,
  deleted_at BIGINT NOT NULL
);

CREATE INDEX deleted_files_at ON deleted_files (deleted_at);
