-- +goose Up
CREATE TABLE nodes (
  id           TEXT    NOT NULL PRIMARY KEY,
  address      TEXT    NOT NULL, -- where other nodes reach it
  epoch        INTEGER NOT NULL, -- grows with every start
  beats        INTEGER NOT NULL, -- grows while it is alive
  seen_at      INTEGER NOT NULL,
  left_at      INTEGER,          -- stopped in order
  forgotten_at INTEGER,          -- given up
  stranded     INTEGER NOT NULL  -- blobs that only it had when it went away
) STRICT, WITHOUT ROWID;

CREATE TABLE leases (
  name        TEXT    NOT NULL PRIMARY KEY,
  owner       TEXT    NOT NULL,
  epoch       INTEGER NOT NULL,
  lease_until INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
