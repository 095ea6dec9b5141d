-- For PostgreSQL; as migrations/sqlite, and the same comments hold.
--
-- Times are microseconds. What is compared is compared byte for byte: COLLATE "C".

-- +goose Up
CREATE TABLE blobs (
  id           TEXT COLLATE "C" NOT NULL PRIMARY KEY,
  sha1         BYTEA  NOT NULL CHECK (octet_length(sha1) = 20),
  size         BIGINT NOT NULL CHECK (size >= 0),
  root         BYTEA           CHECK (octet_length(root) = 32),
  hint         BYTEA  NOT NULL CHECK (octet_length(hint) = 20),
  crc32c       BIGINT NOT NULL,
  state        TEXT COLLATE "C" NOT NULL CHECK (state IN ('live', 'condemned', 'deleting', 'stranded', 'lost')),
  refs         BIGINT NOT NULL CHECK (refs >= 0),
  node         TEXT COLLATE "C",
  staging      TEXT COLLATE "C",
  store        TEXT COLLATE "C",
  object_key   TEXT COLLATE "C",
  last_owner   TEXT COLLATE "C",
  created_at   BIGINT NOT NULL,
  updated_at   BIGINT NOT NULL,
  verified_at  BIGINT,
  condemned_at BIGINT
);

-- Not partial as with SQLite: blobs of one SHA-1 and size are locked whether or not they have a root.
CREATE UNIQUE INDEX blobs_identity ON blobs (sha1, size, root);
CREATE INDEX blobs_hint ON blobs (hint, size) WHERE root IS NOT NULL;
CREATE UNIQUE INDEX blobs_staging ON blobs (staging) WHERE staging IS NOT NULL;
CREATE INDEX blobs_condemned ON blobs (state, condemned_at) WHERE condemned_at IS NOT NULL;
CREATE INDEX blobs_droppable ON blobs (node, verified_at) WHERE node IS NOT NULL AND verified_at IS NOT NULL;

CREATE TABLE files (
  id           TEXT COLLATE "C" NOT NULL PRIMARY KEY,
  owner        TEXT COLLATE "C" NOT NULL,
  blob_id      TEXT COLLATE "C" NOT NULL REFERENCES blobs (id),
  name         TEXT COLLATE "C" NOT NULL,
  name_folded  TEXT COLLATE "C" NOT NULL,
  path         TEXT COLLATE "C" NOT NULL,
  content_type TEXT COLLATE "C" NOT NULL,
  metadata     TEXT,
  size         BIGINT NOT NULL,
  created_at   BIGINT NOT NULL,
  updated_at   BIGINT NOT NULL
);

CREATE INDEX files_blob ON files (blob_id, owner);
CREATE INDEX files_created ON files (owner, created_at, id);
CREATE INDEX files_name ON files (owner, name_folded, id);
CREATE INDEX files_size ON files (owner, size, id);

CREATE TABLE transfers (
  id          TEXT COLLATE "C" NOT NULL PRIMARY KEY,
  blob_id     TEXT COLLATE "C" NOT NULL REFERENCES blobs (id),
  node        TEXT COLLATE "C" NOT NULL,
  store       TEXT COLLATE "C" NOT NULL,
  state       TEXT COLLATE "C" NOT NULL
              CHECK (state IN ('queued', 'running', 'verifying', 'stored', 'retrying', 'dead', 'cancelled')),
  bytes       BIGINT NOT NULL,
  attempts    BIGINT NOT NULL,
  next_at     BIGINT,
  due_at      BIGINT,
  last_error  TEXT,
  lease_owner TEXT COLLATE "C",
  lease_epoch BIGINT NOT NULL,
  lease_until BIGINT,
  created_at  BIGINT NOT NULL,
  updated_at  BIGINT NOT NULL
);

CREATE UNIQUE INDEX transfers_blob ON transfers (blob_id);
CREATE INDEX transfers_due ON transfers (node, due_at, id) WHERE due_at IS NOT NULL;
CREATE INDEX transfers_state ON transfers (state, created_at, id);

CREATE TABLE answers (
  upload_id   TEXT COLLATE "C" NOT NULL PRIMARY KEY,
  owner       TEXT COLLATE "C" NOT NULL,
  idem_key    TEXT COLLATE "C",
  fingerprint TEXT COLLATE "C",
  state       TEXT COLLATE "C" NOT NULL CHECK (state IN ('complete', 'cancelled', 'expired', 'rejected')),
  instant     SMALLINT NOT NULL,
  file        TEXT,
  want        TEXT COLLATE "C",
  got         TEXT COLLATE "C",
  created_at  BIGINT NOT NULL,
  expires_at  BIGINT NOT NULL
);

CREATE UNIQUE INDEX answers_key ON answers (owner, idem_key) WHERE idem_key IS NOT NULL;
CREATE INDEX answers_expires ON answers (expires_at);

CREATE TABLE audit (
  id     TEXT COLLATE "C" NOT NULL PRIMARY KEY,
  at     BIGINT NOT NULL,
  kind   TEXT COLLATE "C" NOT NULL,
  detail TEXT NOT NULL
);

-- The one row about the database itself: its name, by which a node knows that it is its own, and a number
-- that nodes with replicas count up, to see how far those are behind.
CREATE TABLE cluster (
  one   SMALLINT NOT NULL PRIMARY KEY CHECK (one = 1),
  id    TEXT COLLATE "C" NOT NULL,
  pulse BIGINT   NOT NULL
);

INSERT INTO cluster (one, id, pulse) VALUES (1, gen_random_uuid()::text, 0);
