-- +goose NO TRANSACTION
-- +goose Up
CREATE TABLE IF NOT EXISTS moves (
  id          VARCHAR(64)   NOT NULL PRIMARY KEY,
  blob_id     VARCHAR(64)   NOT NULL,
  from_store  VARCHAR(64)   NOT NULL,
  from_key    VARCHAR(1024) NOT NULL,
  to_store    VARCHAR(64)   NOT NULL,
  to_key      VARCHAR(1024) NOT NULL,
  state       VARCHAR(16)   NOT NULL CHECK (state IN ('copying', 'switched', 'deleting')),
  checkpoint  VARBINARY(4096),
  created_at  BIGINT        NOT NULL,
  switched_at BIGINT,
  KEY moves_blob (blob_id),
  KEY moves_state (state, switched_at),
  CONSTRAINT moves_have_blobs FOREIGN KEY (blob_id) REFERENCES blobs (id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

SET @made = (SELECT COUNT(*) FROM information_schema.statistics
  WHERE table_schema = DATABASE() AND table_name = 'blobs' AND index_name = 'blobs_store');
SET @make = IF(@made > 0, 'DO 0', 'ALTER TABLE blobs ADD KEY blobs_store (store, state, id, size)');
PREPARE make FROM @make;
EXECUTE make;
DEALLOCATE PREPARE make;
