-- +goose NO TRANSACTION
-- +goose Up
CREATE TABLE IF NOT EXISTS direct_uploads (
  id           VARCHAR(128)  NOT NULL PRIMARY KEY,
  owner        VARCHAR(255)  NOT NULL,
  idem_key     VARBINARY(255),
  spec         MEDIUMTEXT    NOT NULL,
  blob_id      VARCHAR(64)   NOT NULL,
  store        VARCHAR(64)   NOT NULL,
  object_key   VARCHAR(1024) NOT NULL,
  multipart_id VARCHAR(2048) NOT NULL,
  created_at   BIGINT        NOT NULL,
  updated_at   BIGINT        NOT NULL,
  ended_at     BIGINT,
  UNIQUE KEY direct_key (owner, idem_key),
  UNIQUE KEY direct_blob (blob_id),
  KEY direct_owner (owner, id),
  KEY direct_updated (updated_at),
  KEY direct_ended (ended_at)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
