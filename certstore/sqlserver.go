package certstore

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"strconv"
	"time"

	mssql "github.com/microsoft/go-mssqldb"
	"github.com/microsoft/go-mssqldb/msdsn"
)

// sqlserverDialect reads WSO2's database in Microsoft SQL Server.
var sqlserverDialect = &dialect{
	prefixes:  []string{"sqlserver://"},
	form:      "sqlserver://USER@HOST:PORT/DATABASE",
	port:      "1433",
	tls:       tlsWords{key: "encrypt", verify: "true", plain: "disable"},
	tables:    `SELECT TABLE_NAME FROM INFORMATION_SCHEMA.TABLES WHERE TABLE_SCHEMA = SCHEMA_NAME()`,
	connect:   connectSQLServer,
	statement: func(query string) string { return numbered(query, "@p") },
	advise:    adviseSQLServer,
}

// A sqlserver is a driver.Connector that reads the roots for each connection.
type sqlserver struct {
	at  URL
	cfg msdsn.Config
}

func connectSQLServer(at URL, _ how) (*connection, error) {
	port, err := strconv.ParseUint(at.server.port, 10, 16)
	if err != nil {
		return nil, err
	}
	cfg := msdsn.Config{
		Host: at.server.host, Port: port, Database: at.server.database, User: at.server.user, Password: at.server.password,
		Protocols: []string{"tcp"}, DialTimeout: serverPatience, KeepAlive: serverPatience, AppName: "sallyport",
		Encryption: msdsn.EncryptionDisabled, ReadOnlyIntent: true, DisableRetry: true,
		Parameters: map[string]string{}, ProtocolParameters: map[string]any{}, Encoding: msdsn.EncodeParameters{Timezone: time.UTC},
	}
	if at.encrypted() {
		cfg.Encryption = msdsn.EncryptionRequired
	}
	return onServer(sqlserver{at, cfg}), nil
}

// Connect is what database/sql calls for a new connection.
func (s sqlserver) Connect(ctx context.Context) (driver.Conn, error) {
	roots, err := s.at.roots()
	if err != nil {
		return nil, err
	}
	cfg := s.cfg
	if roots != nil {
		roots.DynamicRecordSizingDisabled = true // the server takes a packet of its own in one record
		cfg.TLSConfig = roots
	}
	connector := mssql.NewConnectorConfig(cfg)
	connector.SessionInitSQL = fmt.Sprintf("SET LOCK_TIMEOUT %d", lockPatience.Milliseconds()) // readers wait for writers there
	return connector.Connect(ctx)
}

// Driver is what database/sql asks for.
func (sqlserver) Driver() driver.Driver { return &mssql.Driver{} }

// Numbers of errors.
const (
	sqlserverNoTable    = 208
	sqlserverNoRight    = 229
	sqlserverColumn     = 230 // no right to a column
	sqlserverDeadlock   = 1205
	sqlserverLock       = 1222
	sqlserverNoDatabase = 4060
	sqlserverLogin      = 18456
)

// adviseSQLServer adds to an error of SQL Server what may be done about it.
func adviseSQLServer(err error) error {
	var e mssql.Error
	if !errors.As(err, &e) {
		return adviseServer(err)
	}
	switch e.Number {
	case sqlserverDeadlock, sqlserverLock:
		return unavailable{fmt.Errorf("%w: another program is changing it: let it finish, and try again", err)}
	case sqlserverLogin:
		return fmt.Errorf("%w: check the user and the password", err)
	case sqlserverNoDatabase:
		return fmt.Errorf("%w: check the database's name, and that the user may connect to it", err)
	case sqlserverNoRight, sqlserverColumn:
		return fmt.Errorf("%w: the user lacks a right: see docs/stores.md", err)
	case sqlserverNoTable:
		return fmt.Errorf("%w: its tables are not as they were made", err)
	}
	if e.Class >= 17 { // of resources and faults; below, it is what was asked for
		return unavailable{fmt.Errorf("%w: try again when its server is well", err)}
	}
	return err
}
