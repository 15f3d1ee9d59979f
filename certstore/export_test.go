package certstore

import (
	"context"
	"crypto/x509"
	"database/sql"
	"errors"
	"regexp"
)

// ParseStored is for the fuzzer: the CERTIFICATE column may be written by others.
var ParseStored = parseStored

// Encrypted reports whether the connection to a server is by TLS, if no caFile says so.
func (u URL) Encrypted() bool { return u.encrypted() }

// ReadWSO2 reads the tables of WSO2 in a SQLite database by the statements of another kind of database, which it returns.
func ReadWSO2(ctx context.Context, db *sql.DB, prefix string) (aliases, statements []string, err error) {
	for _, d := range dialects {
		if d.prefixes[0] != prefix {
			continue
		}
		q := &pretender{DB: db}
		rows, err := (&wso2{d, certificateTable, apiTable}).rows(ctx, session{d, q}, superTenant)
		for _, r := range rows {
			aliases = append(aliases, r.alias)
		}
		return aliases, q.statements, err
	}
	return nil, nil, errNotThere
}

var errNotThere = errors.New("there is no such kind of database")

// A pretender is a SQLite database that takes another one's placeholders.
type pretender struct {
	*sql.DB
	statements []string
}

var placeholder = regexp.MustCompile(`(@p|:|\$)\d+`)

func (p *pretender) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	p.statements = append(p.statements, query)
	return p.DB.QueryContext(ctx, placeholder.ReplaceAllString(query, "?"), args...)
}

// ParseSnapshotClient is for the fuzzer, which finds no digest.
func ParseSnapshotClient(line []byte) (Client, error) {
	return parseSnapshotClient(line, map[[32]byte]*x509.Certificate{})
}
