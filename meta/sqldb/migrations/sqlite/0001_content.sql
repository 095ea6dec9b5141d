-- Times are microseconds since 1970, UTC. NULL stands for "none". Ids begin with the time, so the tables
-- that are clustered by id grow at their end.

-- +goose Up
CREATE TABLE blobs (
  id           TEXT    NOT NULL PRIMARY KEY,
  sha1         BLOB    NOT NULL CHECK (length(sha1) = 20),
  size         INTEGER NOT NULL CHECK (size >= 0),
  root         BLOB             CHECK (length(root) = 32), -- NULL: not computed, or given up to another blob
  hint         BLOB    NOT NULL CHECK (length(hint) = 20),
  crc32c       INTEGER NOT NULL,
  state        TEXT    NOT NULL CHECK (state IN ('live', 'condemned', 'deleting', 'stranded', 'lost')),
  refs         INTEGER NOT NULL CHECK (refs >= 0),
  node         TEXT, -- whose staging has the bytes
  staging      TEXT, -- the upload whose staging data they are
  store        TEXT, -- which has the verified bytes
  object_key   TEXT,
  last_owner   TEXT, -- of the last file, while condemned
  created_at   INTEGER NOT NULL,
  updated_at   INTEGER NOT NULL,
  verified_at  INTEGER,
  condemned_at INTEGER
) STRICT, WITHOUT ROWID;

-- Instant upload's look-ups, and the guard that no two blobs are the same content. Digests are spread over
-- the whole of an index; a blob gets there once, when its root is known.
CREATE UNIQUE INDEX blobs_identity ON blobs (sha1, size, root) WHERE root IS NOT NULL;
CREATE INDEX blobs_hint ON blobs (hint, size) WHERE root IS NOT NULL;
-- No two blobs are the data of one upload.
CREATE UNIQUE INDEX blobs_staging ON blobs (staging) WHERE staging IS NOT NULL;
CREATE INDEX blobs_condemned ON blobs (state, condemned_at) WHERE condemned_at IS NOT NULL;
CREATE INDEX blobs_droppable ON blobs (node, verified_at) WHERE node IS NOT NULL AND verified_at IS NOT NULL;

CREATE TABLE files (
  id           TEXT    NOT NULL PRIMARY KEY,
  owner        TEXT    NOT NULL,
  blob_id      TEXT    NOT NULL REFERENCES blobs (id),
  name         TEXT    NOT NULL,
  name_folded  TEXT    NOT NULL, -- in lower case: searched, and sorted by
  path         TEXT    NOT NULL,
  content_type TEXT    NOT NULL,
  metadata     TEXT, -- JSON object
  size         INTEGER NOT NULL, -- as the blob's; here to sort by
  created_at   INTEGER NOT NULL,
  updated_at   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX files_blob ON files (blob_id, owner);
CREATE INDEX files_created ON files (owner, created_at, id);
CREATE INDEX files_name ON files (owner, name_folded, id);
CREATE INDEX files_size ON files (owner, size, id);

CREATE TABLE transfers (
  id          TEXT    NOT NULL PRIMARY KEY,
  blob_id     TEXT    NOT NULL REFERENCES blobs (id),
  node        TEXT    NOT NULL,
  store       TEXT    NOT NULL,
  state       TEXT    NOT NULL
              CHECK (state IN ('queued', 'running', 'verifying', 'stored', 'retrying', 'dead', 'cancelled')),
  bytes       INTEGER NOT NULL,
  attempts    INTEGER NOT NULL,
  next_at     INTEGER, -- retrying: not before
  due_at      INTEGER, -- when the outbox relay has to look at it: 0 at once, NULL never (final)
  last_error  TEXT,
  lease_owner TEXT,
  lease_epoch INTEGER NOT NULL,
  lease_until INTEGER,
  created_at  INTEGER NOT NULL,
  updated_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX transfers_blob ON transfers (blob_id);
CREATE INDEX transfers_due ON transfers (node, due_at, id) WHERE due_at IS NOT NULL;
CREATE INDEX transfers_state ON transfers (state, created_at, id);

CREATE TABLE answers (
  upload_id   TEXT    NOT NULL PRIMARY KEY,
  owner       TEXT    NOT NULL,
  idem_key    TEXT,
  fingerprint TEXT,
  state       TEXT    NOT NULL CHECK (state IN ('complete', 'cancelled', 'expired', 'rejected')),
  instant     INTEGER NOT NULL,
  file        TEXT, -- JSON, as it was then
  want        TEXT,
  got         TEXT,
  created_at  INTEGER NOT NULL,
  expires_at  INTEGER NOT NULL
) STRICT;

CREATE UNIQUE INDEX answers_key ON answers (owner, idem_key) WHERE idem_key IS NOT NULL;
CREATE INDEX answers_expires ON answers (expires_at);

CREATE TABLE audit (
  id     TEXT    NOT NULL PRIMARY KEY,
  at     INTEGER NOT NULL,
  kind   TEXT    NOT NULL,
  detail TEXT    NOT NULL -- JSON
) STRICT, WITHOUT ROWID;
