-- For MySQL 8 and MariaDB; as migrations/sqlite, and the same comments hold.
--
-- MySQL commits every statement that changes the schema by itself: a migration that is killed half way
-- leaves what it had done, and is run again from its beginning. So each statement here can be repeated.
--
-- Times are microseconds. What is compared is compared byte for byte. Columns in which a space at the end
-- counts are VARBINARY, because utf8mb4_bin takes no notice of it. There are no partial indexes, but NULLs
-- are no duplicates of each other. An index takes keys of 3072 bytes, a character counting as four.

-- +goose NO TRANSACTION
-- +goose Up
CREATE TABLE IF NOT EXISTS blobs (
  id           VARCHAR(64)   NOT NULL PRIMARY KEY,
  sha1         BINARY(20)    NOT NULL,
  size         BIGINT        NOT NULL CHECK (size >= 0),
  root         BINARY(32),
  hint         BINARY(20)    NOT NULL,
  crc32c       BIGINT        NOT NULL,
  state        VARCHAR(16)   NOT NULL CHECK (state IN ('live', 'condemned', 'deleting', 'stranded', 'lost')),
  refs         BIGINT        NOT NULL CHECK (refs >= 0),
  node         VARCHAR(64),
  staging      VARCHAR(128),
  store        VARCHAR(64),
  object_key   VARCHAR(1024),
  last_owner   VARCHAR(255),
  created_at   BIGINT        NOT NULL,
  updated_at   BIGINT        NOT NULL,
  verified_at  BIGINT,
  condemned_at BIGINT,
  UNIQUE KEY blobs_identity (sha1, size, root),
  KEY blobs_hint (hint, size),
  UNIQUE KEY blobs_staging (staging),
  KEY blobs_condemned (state, condemned_at),
  KEY blobs_droppable (node, verified_at)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS files (
  id           VARCHAR(64)     NOT NULL PRIMARY KEY,
  owner        VARCHAR(255)    NOT NULL,
  blob_id      VARCHAR(64)     NOT NULL,
  name         VARCHAR(1024)   NOT NULL,
  name_folded  VARBINARY(1536) NOT NULL, -- lower case can be half as long again
  path         VARBINARY(4096) NOT NULL,
  content_type VARCHAR(255)    NOT NULL,
  metadata     MEDIUMTEXT,
  size         BIGINT          NOT NULL,
  created_at   BIGINT          NOT NULL,
  updated_at   BIGINT          NOT NULL,
  KEY files_blob (blob_id, owner),
  KEY files_created (owner, created_at, id),
  KEY files_name (owner, name_folded, id),
  KEY files_size (owner, size, id),
  CONSTRAINT files_have_blobs FOREIGN KEY (blob_id) REFERENCES blobs (id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS transfers (
  id          VARCHAR(64)  NOT NULL PRIMARY KEY,
  blob_id     VARCHAR(64)  NOT NULL,
  node        VARCHAR(64)  NOT NULL,
  store       VARCHAR(64)  NOT NULL,
  state       VARCHAR(16)  NOT NULL
              CHECK (state IN ('queued', 'running', 'verifying', 'stored', 'retrying', 'dead', 'cancelled')),
  bytes       BIGINT       NOT NULL,
  attempts    BIGINT       NOT NULL,
  next_at     BIGINT,
  due_at      BIGINT,
  last_error  MEDIUMTEXT,
  lease_owner VARCHAR(255),
  lease_epoch BIGINT       NOT NULL,
  lease_until BIGINT,
  created_at  BIGINT       NOT NULL,
  updated_at  BIGINT       NOT NULL,
  UNIQUE KEY transfers_blob (blob_id),
  KEY transfers_due (node, due_at, id),
  KEY transfers_state (state, created_at, id),
  CONSTRAINT transfers_have_blobs FOREIGN KEY (blob_id) REFERENCES blobs (id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS answers (
  upload_id   VARCHAR(128) NOT NULL PRIMARY KEY,
  owner       VARCHAR(255) NOT NULL,
  idem_key    VARBINARY(255),
  fingerprint VARCHAR(255),
  state       VARCHAR(16)  NOT NULL CHECK (state IN ('complete', 'cancelled', 'expired', 'rejected')),
  instant     SMALLINT     NOT NULL,
  file        MEDIUMTEXT,
  want        VARCHAR(255),
  got         VARCHAR(255),
  created_at  BIGINT       NOT NULL,
  expires_at  BIGINT       NOT NULL,
  UNIQUE KEY answers_key (owner, idem_key),
  KEY answers_expires (expires_at)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS audit (
  id     VARCHAR(64) NOT NULL PRIMARY KEY,
  at     BIGINT      NOT NULL,
  kind   VARCHAR(64) NOT NULL,
  detail MEDIUMTEXT  NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- The one row about the database itself: its name, by which a node knows that it is its own, and a number
-- that nodes with replicas count up, to see how far those are behind.
CREATE TABLE IF NOT EXISTS cluster (
  one   SMALLINT    NOT NULL PRIMARY KEY CHECK (one = 1),
  id    VARCHAR(64) NOT NULL,
  pulse BIGINT      NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

INSERT IGNORE INTO cluster (one, id, pulse) VALUES (1, UUID(), 0);
