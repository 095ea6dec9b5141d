-- +goose Up
CREATE TABLE moves (
  id          TEXT COLLATE "C" NOT NULL PRIMARY KEY,
  blob_id     TEXT COLLATE "C" NOT NULL REFERENCES blobs (id),
  from_store  TEXT COLLATE "C" NOT NULL,
  from_key    TEXT COLLATE "C" NOT NULL,
  to_store    TEXT COLLATE "C" NOT NULL,
  to_key      TEXT COLLATE "C" NOT NULL,
  state       TEXT COLLATE "C" NOT NULL CHECK (state IN ('copying', 'switched', 'deleting')),
  checkpoint  BYTEA,
  created_at  BIGINT NOT NULL,
  switched_at BIGINT
);

CREATE INDEX moves_blob ON moves (blob_id);
CREATE INDEX moves_state ON moves (state, switched_at);

-- Counting what a store has, and going through it, reads no more than this.
CREATE INDEX blobs_store ON blobs (store, state, id, size) WHERE store IS NOT NULL;
