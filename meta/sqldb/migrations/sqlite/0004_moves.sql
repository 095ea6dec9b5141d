-- +goose Up
CREATE TABLE moves (
  id          TEXT    NOT NULL PRIMARY KEY,
  blob_id     TEXT    NOT NULL REFERENCES blobs (id),
  from_store  TEXT    NOT NULL,
  from_key    TEXT    NOT NULL,
  to_store    TEXT    NOT NULL,
  to_key      TEXT    NOT NULL,
  state       TEXT    NOT NULL CHECK (state IN ('copying', 'switched', 'deleting')),
  checkpoint  BLOB,    -- copying: how far the new object is, in its driver's words
  created_at  INTEGER NOT NULL,
  switched_at INTEGER  -- NULL: the blob is not at the new place
) STRICT, WITHOUT ROWID;

CREATE INDEX moves_blob ON moves (blob_id);
CREATE INDEX moves_state ON moves (state, switched_at);

-- Counting what a store has, and going through it, reads no more than this.
CREATE INDEX blobs_store ON blobs (store, state, id, size) WHERE store IS NOT NULL;
