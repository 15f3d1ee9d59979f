//go:build oracle

package certstore

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"

	oracle "github.com/sijms/go-ora/v2"
	"github.com/sijms/go-ora/v2/network"
)

const oracleUnbuilt = ""

// An oracleConnector is a driver.Connector that reads the roots for each connection.
type oracleConnector struct {
	at  URL
	dsn string
}

func connectOracle(at URL, _ how) (*connection, error) {
	dsn := url.URL{
		Scheme: "oracle", User: url.UserPassword(at.server.user, at.server.password),
		Host: net.JoinHostPort(at.server.host, at.server.port), Path: "/" + at.server.database,
		RawQuery: url.Values{
			"SSL":        {strconv.FormatBool(at.encrypted())},
			"SSL VERIFY": {"true"},
			"TIMEOUT":    {strconv.Itoa(int(serverPatience.Seconds()))},
		}.Encode(),
	}
	return onServer(oracleConnector{at, dsn.String()}), nil
}

// Connect is what database/sql calls for a new connection.
func (o oracleConnector) Connect(ctx context.Context) (driver.Conn, error) {
	roots, err := o.at.roots()
	if err != nil {
		return nil, err
	}
	connector, ok := oracle.NewConnector(o.dsn).(*oracle.OracleConnector)
	if !ok {
		return nil, errors.New("the driver of Oracle takes no TLS")
	}
	if roots != nil {
		connector.WithTLSConfig(roots)
	}
	return connector.Connect(ctx)
}

// Driver is what database/sql asks for.
func (oracleConnector) Driver() driver.Driver { return oracle.NewDriver() }

// Numbers of errors.
const (
	oracleNoTable   = 942
	oracleLogin     = 1017
	oracleNoRight   = 1031
	oracleStarting  = 1033
	oracleStopping  = 1089
	oracleEnded     = 3113
	oracleNoSID     = 12505
	oracleNoService = 12514
	oracleNoServer  = 12541
	oracleLocked    = 28000
)

// adviseOracle adds to an error of Oracle what may be done about it.
func adviseOracle(err error) error {
	var e *network.OracleError
	if !errors.As(err, &e) {
		return adviseServer(err)
	}
	switch e.ErrCode {
	case oracleLogin, oracleLocked:
		return fmt.Errorf("%w: check the user and the password", err)
	case oracleNoSID, oracleNoService:
		return fmt.Errorf("%w: check the service's name", err)
	case oracleNoTable, oracleNoRight:
		return fmt.Errorf("%w: the user lacks a right, or a synonym: see docs/stores.md", err)
	case oracleStarting, oracleStopping, oracleEnded, oracleNoServer:
		return unavailable{fmt.Errorf("%w: try again when its server is well", err)}
	}
	return err
}
