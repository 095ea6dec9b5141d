-- +goose NO TRANSACTION
-- +goose Up
CREATE TABLE IF NOT EXISTS nodes (
  id           VARCHAR(64)  NOT NULL PRIMARY KEY,
  address      VARCHAR(512) NOT NULL,
  epoch        BIGINT       NOT NULL,
  beats        BIGINT       NOT NULL,
  seen_at      BIGINT       NOT NULL,
  left_at      BIGINT,
  forgotten_at BIGINT,
  stranded     BIGINT       NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS leases (
  name        VARCHAR(64)  NOT NULL PRIMARY KEY,
  owner       VARCHAR(255) NOT NULL,
  epoch       BIGINT       NOT NULL,
  lease_until BIGINT       NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
