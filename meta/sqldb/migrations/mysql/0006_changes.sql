-- +goose NO TRANSACTION
-- +goose Up
CREATE TABLE IF NOT EXISTS deleted_files (
  id         VARCHAR(64)  NOT NULL PRIMARY KEY,
  owner      VARCHAR(255) NOT NULL,
  deleted_at BIGINT       NOT NULL,
  KEY deleted_files_at (deleted_at)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

SET @made = (SELECT COUNT(*) FROM information_schema.statistics
  WHERE table_schema = DATABASE() AND table_name = 'files' AND index_name = 'files_updated');
SET @make = IF(@made > 0, 'DO 0', 'ALTER TABLE files ADD KEY files_updated (owner, updated_at, id)');
PREPARE make FROM @make;
EXECUTE make;
DEALLOCATE PREPARE make;

SET @made = (SELECT COUNT(*) FROM information_schema.statistics
  WHERE table_schema = DATABASE() AND table_name = 'transfers' AND index_name = 'transfers_updated');
SET @make = IF(@made > 0, 'DO 0', 'ALTER TABLE transfers ADD KEY transfers_updated (updated_at, blob_id)');
PREPARE make FROM @make;
EXECUTE make;
DEALLOCATE PREPARE make;
