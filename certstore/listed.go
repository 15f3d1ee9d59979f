package certstore

import (
	"context"
	"database/sql"
	"slices"
	"sync"
)

// listed is what List has read of a database, so that the next List reads only the certificates that are new since.
type listed struct {
	digest string // an expression: another one for a row whose certificate is another one; NULL if there is none

	mu   sync.Mutex
	rows map[rowKey]listedRow // those whose certificate the database has a digest of
}

// A rowKey identifies a live row of a tenant.
type rowKey struct {
	apiID          int64
	alias, keyType string
}

type listedRow struct {
	digest string
	client *Client
}

func (r *row) key() rowKey { return rowKey{r.apiID, r.alias, r.keyType} }

// mostSingly is how many rows are read one by one; for more, all are read at once.
const mostSingly = 1000

// liveRows reads the tenant's live rows as they are at one moment. Those that l knows come with their Client in place of
// their certificate.
func (s *Store) liveRows(ctx context.Context, q querier, l *listed) ([]row, error) {
	all := func() ([]row, error) { return s.rowsWith(ctx, q, l.digest, "C.CERTIFICATE", "") }
	if len(l.rows) == 0 {
		return all()
	}
	rows, err := s.rowsWith(ctx, q, l.digest, "NULL", "")
	if err != nil {
		return nil, err
	}
	var news []int
	for i := range rows {
		r := &rows[i]
		if r.known = l.find(r); r.known == nil {
			news = append(news, i)
		}
		r.listed = r.known != nil
	}
	if len(news) > mostSingly {
		return all()
	}
	for _, i := range news {
		r := &rows[i]
		same, err := s.rowsWith(ctx, q, l.digest, "C.CERTIFICATE", " AND C.API_ID = ? AND C.ALIAS = ? AND C.KEY_TYPE = ?",
			r.apiID, r.alias, r.keyType)
		if err != nil {
			return nil, err
		}
		same = slices.DeleteFunc(same, func(one row) bool { return one.key() != r.key() }) // a database may fold case
		if len(same) != 1 {
			return all()
		}
		rows[i] = same[0]
	}
	return rows, nil
}

// find returns the Client of a row that has not changed, or nil.
func (l *listed) find(r *row) *Client {
	if !r.digest.Valid {
		return nil
	}
	known, ok := l.rows[r.key()]
	if !ok || known.digest != r.digest.String {
		return nil
	}
	if !r.sameWords(known.client) {
		return nil
	}
	return known.client
}

// sameWords reports whether a row says the same as c, its certificate apart.
func (r *row) sameWords(c *Client) bool {
	return r.name.Valid && r.version.Valid && r.name.String == c.API.Name && r.version.String == c.API.Version &&
		r.tier.String == c.Tier && slices.Equal(splitScopes(r.scopes.String), c.Scopes)
}

// keep remembers rows, and forgets all others.
func (l *listed) keep(rows []*row) {
	kept := 0
	for _, r := range rows {
		if r.digest.Valid && r.known != nil {
			kept++
		}
	}
	all := l.rows == nil
	if all {
		l.rows = make(map[rowKey]listedRow, kept)
	}
	for _, r := range rows {
		if r.digest.Valid && r.known != nil && (all || !r.listed) {
			l.rows[r.key()] = listedRow{r.digest.String, r.known}
		}
	}
	if kept < len(l.rows) { // some are gone
		l.rows = nil
		l.keep(rows)
	}
}

// readAtOnce calls f with a transaction that sees the database as it is at one moment.
func readAtOnce(ctx context.Context, db *sql.DB, f func(querier) error) error {
	tx, err := db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true})
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // nothing was written
	return f(tx)
}
