-- +goose Up
CREATE TABLE nodes (
  id           TEXT COLLATE "C" NOT NULL PRIMARY KEY,
  address      TEXT   NOT NULL,
  epoch        BIGINT NOT NULL,
  beats        BIGINT NOT NULL,
  seen_at      BIGINT NOT NULL,
  left_at      BIGINT,
  forgotten_at BIGINT,
  stranded     BIGINT NOT NULL
);

CREATE TABLE leases (
  name        TEXT COLLATE "C" NOT NULL PRIMARY KEY,
  owner       TEXT COLLATE "C" NOT NULL,
  epoch       BIGINT NOT NULL,
  lease_until BIGINT NOT NULL
);
