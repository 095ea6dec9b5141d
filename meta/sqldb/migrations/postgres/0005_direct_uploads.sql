-- +goose Up
CREATE TABLE direct_uploads (
  id           TEXT COLLATE "C" NOT NULL PRIMARY KEY,
  owner        TEXT COLLATE "C" NOT NULL,
  idem_key     TEXT COLLATE "C",
  spec         TEXT   NOT NULL,
  blob_id      TEXT COLLATE "C" NOT NULL,
  store        TEXT COLLATE "C" NOT NULL,
  object_key   TEXT COLLATE "C" NOT NULL,
  multipart_id TEXT COLLATE "C" NOT NULL,
  created_at   BIGINT NOT NULL,
  updated_at   BIGINT NOT NULL,
  ended_at     BIGINT
);

CREATE UNIQUE INDEX direct_key ON direct_uploads (owner, idem_key) WHERE idem_key IS NOT NULL;
CREATE UNIQUE INDEX direct_blob ON direct_uploads (blob_id);
CREATE INDEX direct_owner ON direct_uploads (owner, id);
CREATE INDEX direct_updated ON direct_uploads (updated_at);
CREATE INDEX direct_ended ON direct_uploads (ended_at) WHERE ended_at IS NOT NULL;
