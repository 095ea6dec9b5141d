-- +goose Up
-- How far the putting of a large object got; see store.Checkpoint.
CREATE TABLE checkpoints (
  transfer_id TEXT NOT NULL PRIMARY KEY,
  store       TEXT NOT NULL,
  state       TEXT NOT NULL
) STRICT, WITHOUT ROWID;
