package sqldb

import (
	"context"
	"database/sql/driver"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"strings"

	"github.com/go-sql-driver/mysql"
	"github.com/pressly/goose/v3"

	"gantry/upload"
)

//go:embed migrations/mysql/*.sql
var mysqlMigrations embed.FS

// mysqlDialect is for MySQL 8 and MariaDB: what only one of them knows is not used.
func mysqlDialect() (dialect, error) {
	migrations, err := fs.Sub(mysqlMigrations, "migrations/mysql")
	return dialect{
		goose: goose.DialectMySQL, migrations: migrations,
		// The name is the server's, so it has that of the database in it; 64 characters at the most.
		migrationLock: []string{`SELECT GET_LOCK(CONCAT('gantry-', LEFT(SHA1(DATABASE()), 32)), 600)`},
		begin:         "START TRANSACTION", commit: commitText, forUpdate: " FOR UPDATE", pageFirst: true, byIndex: " FORCE INDEX (%s)",
		writers: serverWriters, batch: serverBatch, patience: serverPatience,
		kind: mysqlKind, conflict: mysqlConflict, lost: mysqlLost,
	}, err
}

// mysqlConnector makes connections from a URL. The driver's parameters come after the "?"; those that the
// statements here rely on are set after them.
func mysqlConnector(u *url.URL) (driver.Connector, error) {
	host := u.Host
	if u.Port() == "" {
		host += ":3306"
	}
	name := "tcp(" + host + ")/"
	if socket := u.Query().Get("socket"); socket != "" {
		name = "unix(" + socket + ")/"
	}
	params := u.Query()
	params.Del("socket")
	cfg, err := mysql.ParseDSN(name + "?" + params.Encode())
	if err != nil {
		return nil, upload.Errorf(upload.Invalid, "", "", "The parameters of the database's URL are not those of the driver: %v.", err)
	}
	cfg.User, cfg.DBName = u.User.Username(), strings.TrimPrefix(u.Path, "/")
	cfg.Passwd, _ = u.User.Password()
	cfg.ClientFoundRows = true // an UPDATE counts the rows it finds, also those that are like that already
	cfg.ParseTime = true       // goose reads times
	cfg.InterpolateParams = false
	cfg.Logger = noLogger{} // what it says comes as an error too
	if cfg.Timeout == 0 {
		cfg.Timeout = serverPatience
	}
	c, err := mysql.NewConnector(cfg)
	if err != nil {
		return nil, err
	}
	return mysqlSession{c}, nil
}

// noLogger is silent.
type noLogger struct{}

func (noLogger) Print(...any) {}

// mysqlSession sets connections up as the statements here need them.
type mysqlSession struct{ driver.Connector }

// Connect makes a connection.
func (c mysqlSession) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	for _, statement := range []string{
		"SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
		fmt.Sprintf("SET SESSION autocommit = 1, sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION', innodb_lock_wait_timeout = %d, wait_timeout = %d",
			int(serverLockWait.Seconds()), int((serverAbandoned + serverIdle).Seconds())),
	} {
		if _, err := conn.(driver.ExecerContext).ExecContext(ctx, statement, nil); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
	}
	return conn, nil
}

// Numbers of MySQL's and MariaDB's errors.
const (
	mysqlDuplicate         = 1062
	mysqlDuplicateWithName = 1586
	mysqlLockWait          = 1205
	mysqlDeadlock          = 1213
	mysqlRecordChanged     = 1020 // MariaDB: changed since the snapshot
	mysqlShutdown          = 1053
	mysqlShuttingDown      = 1079
	mysqlKilled            = 1927 // MariaDB: the connection was killed
	mysqlIdle              = 4031 // MySQL: the connection was idle for too long
	mysqlReadOnly          = 1290 // the primary has become a replica: connect anew
	mysqlReadOnlyMode      = 1836
	mysqlTooMany           = 1040
	mysqlTooManyOfUser     = 1203
	mysqlDiskFull          = 1021
	mysqlTableFull         = 1114
	mysqlWrongText         = 1366
	mysqlInterrupted       = 1317
	mysqlNoText            = 3854 // MySQL: a text that is not utf8mb4
)

func mysqlCode(err error) uint16 {
	if e, ok := errors.AsType[*mysql.MySQLError](err); ok {
		return e.Number
	}
	return 0
}

func mysqlConflict(err error) bool {
	switch mysqlCode(err) {
	case mysqlDeadlock, mysqlLockWait, mysqlRecordChanged:
		return true
	}
	return false
}

func mysqlLost(err error) bool {
	switch mysqlCode(err) {
	case mysqlShutdown, mysqlShuttingDown, mysqlKilled, mysqlIdle, mysqlReadOnly, mysqlReadOnlyMode, mysqlTooMany, mysqlTooManyOfUser, mysqlInterrupted:
		return true
	}
	return errors.Is(err, mysql.ErrInvalidConn) || connectionLost(err)
}

// mysqlKind sorts errors by what a caller can do.
func mysqlKind(err error) upload.Kind {
	switch mysqlCode(err) {
	case mysqlDuplicate, mysqlDuplicateWithName:
		return upload.Conflict // an id or a name that is taken
	case mysqlDiskFull, mysqlTableFull:
		return upload.NoRoom
	case mysqlWrongText, mysqlNoText:
		return upload.Invalid
	}
	if mysqlConflict(err) || mysqlLost(err) {
		return upload.Unavailable
	}
	return upload.KindOf(err)
}
