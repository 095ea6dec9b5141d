-- +goose Up
CREATE TABLE checkpoints (
  transfer_id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
  store       TEXT NOT NULL,
  state       TEXT NOT NULL
);
