package certstore

import (
	"cmp"
	"context"
	"crypto/sha256"
	"database/sql"
	"slices"
	"strings"
	"sync"
)

// listed is what List has read of a database, so that the next List reads only the certificates that are new since.
type listed struct {
	digest string // an expression: another one for a row whose certificate is another one; NULL if there is none
	match  string // an expression for a row's match; NULL if the tables have none

	mu    sync.Mutex
	turn  uint64
	rows  []*row // sorted
	byKey map[rowKey]*row

	// What admit works with; kept, since it is as large as the rest.
	ids     map[API]int64
	several map[API]bool
	holders map[proof]*row
}

// A rowKey identifies a live row of a tenant.
type rowKey struct {
	apiID          int64
	alias, keyType string
}

func (r *row) key() rowKey { return rowKey{r.apiID, r.alias, r.keyType} }

// mostSingly is how many rows are read one by one; for more, all are read at once.
const mostSingly = 1000

// list reads the tenant's live rows as they are at one moment, sorted. It parses what it has not read before. w is nil if
// the database is ours.
func (l *listed) list(ctx context.Context, s *Store, w *wso2, q querier) ([]Client, []Problem, error) {
	var rows []*row
	var err error
	if w != nil {
		rows, err = l.foreign(ctx, s, w, q)
	} else {
		rows, err = l.ours(ctx, s, q)
	}
	if err != nil {
		return nil, nil, err
	}
	slices.SortFunc(rows, func(a, b *row) int {
		return cmp.Or(strings.Compare(a.name.String, b.name.String), strings.Compare(a.version.String, b.version.String),
			strings.Compare(a.alias, b.alias), strings.Compare(a.keyType, b.keyType))
	})
	clients, problems := l.admit(rows)
	l.keep(rows)
	return clients, problems, nil
}

// foreign reads the rows of a database that another program owns, and compares them.
func (l *listed) foreign(ctx context.Context, s *Store, w *wso2, q querier) ([]*row, error) {
	l.turn++
	all, err := w.rows(ctx, q, s.opts.TenantID)
	rows := make([]*row, len(all))
	for i := range all {
		r := &all[i]
		sum := sha256.Sum256(r.certificate)
		r.digest = sql.NullString{String: string(sum[:]), Valid: r.fault == nil}
		rows[i] = r
		if known := l.byKey[r.key()]; known != nil && known.same(r) {
			known.seen = l.turn
			rows[i] = known
		}
	}
	return rows, err
}

// same reports whether a row with the same key is as it was read.
func (r *row) same(other *row) bool {
	return r.digest.Valid && r.digest == other.digest && r.name == other.name && r.version == other.version &&
		r.tier == other.tier && r.scopes == other.scopes && r.match == other.match
}

// ours reads the rows of a database of ours.
func (l *listed) ours(ctx context.Context, s *Store, q querier) ([]*row, error) {
	if err := l.lookForMatch(ctx, s, q); err != nil {
		return nil, err
	}
	rows, err := l.again(ctx, s, q)
	if err != nil || rows != nil {
		return rows, err
	}
	all, err := s.rowsWith(ctx, q, l.match, l.digest, "")
	rows = make([]*row, len(all))
	for i := range all {
		rows[i] = &all[i]
	}
	return rows, err
}

// lookForMatch looks whether the tables have matches by now: a newer program may have upgraded them since they were opened
// for reading only.
func (l *listed) lookForMatch(ctx context.Context, s *Store, q querier) error {
	if l.match != "NULL" {
		return nil
	}
	version, err := s.url.dialect.version(ctx, q, matchVersion)
	if err == nil && version >= matchVersion {
		l.match = matchColumn
	}
	return err
}

// again returns the rows of the last list that are as they were, and those that are new; nil if all have to be read.
func (l *listed) again(ctx context.Context, s *Store, q querier) ([]*row, error) {
	if len(l.rows) == 0 {
		return nil, nil
	}
	l.turn++
	news, err := l.look(ctx, s, q)
	if err != nil || len(news) > mostSingly {
		return nil, err
	}
	rows := make([]*row, 0, len(l.rows)+len(news))
	for _, r := range l.rows {
		if r.seen == l.turn {
			rows = append(rows, r)
		}
	}
	for _, key := range news {
		same, err := s.rowsWith(ctx, q, l.match, l.digest, " AND C.API_ID = ? AND C.ALIAS = ? AND C.KEY_TYPE = ?",
			key.apiID, key.alias, key.keyType)
		if err != nil {
			return nil, err
		}
		same = slices.DeleteFunc(same, func(r row) bool { return r.key() != key }) // a database may fold case
		if len(same) != 1 {
			return nil, nil
		}
		rows = append(rows, &same[0])
	}
	return rows, nil
}

// A head is a row without its certificate, as long as no other row is read.
type head struct {
	apiID                                       int64
	alias, keyType, tier, scopes, match, digest sql.RawBytes
}

// An apiRow is a row of AM_API.
type apiRow struct {
	id            int64
	name, version sql.NullString
}

// look marks the rows that are as they were, and returns the others.
func (l *listed) look(ctx context.Context, s *Store, q querier) (news []rowKey, err error) {
	list, err := collect(ctx, q, func(a *apiRow) []any { return []any{&a.id, &a.name, &a.version} },
		`SELECT API_ID, API_NAME, API_VERSION FROM AM_API`)
	if err != nil {
		return nil, err
	}
	apis := make(map[int64]apiRow, len(list))
	for _, a := range list {
		apis[a.id] = a
	}
	rows, err := q.QueryContext(ctx, `SELECT C.API_ID, C.ALIAS, C.KEY_TYPE, C.TIER_NAME, C.SCOPES, `+l.match+`, `+l.digest+
		` FROM AM_API_CLIENT_CERTIFICATE C`+liveRows, s.liveArgs()...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var h head
	places := []any{&h.apiID, &h.alias, &h.keyType, &h.tier, &h.scopes, &h.match, &h.digest}
	for rows.Next() {
		heard(ctx)
		if err := rows.Scan(places...); err != nil {
			return nil, err
		}
		r := l.byKey[rowKey{h.apiID, string(h.alias), string(h.keyType)}]
		if r != nil && r.is(&h) && r.name == apis[h.apiID].name && r.version == apis[h.apiID].version {
			r.seen = l.turn
		} else {
			news = append(news, rowKey{h.apiID, string(h.alias), string(h.keyType)})
		}
	}
	return news, rows.Err()
}

// is reports whether a row is as it was read, its API apart.
func (r *row) is(h *head) bool {
	same := func(was sql.NullString, is sql.RawBytes) bool {
		return was.Valid == (is != nil) && was.String == string(is)
	}
	return r.digest.Valid && same(r.digest, h.digest) && same(r.tier, h.tier) && same(r.scopes, h.scopes) && same(r.match, h.match)
}

// keep remembers rows, and forgets all others.
func (l *listed) keep(rows []*row) {
	if len(l.byKey) > len(rows)+mostSingly {
		l.byKey = nil
	}
	if l.byKey == nil {
		l.byKey = make(map[rowKey]*row, len(rows))
	}
	for _, r := range l.rows {
		if r.seen != l.turn {
			delete(l.byKey, r.key())
		}
	}
	for _, r := range rows {
		if r.seen != l.turn || l.turn == 0 {
			r.seen = l.turn
			l.byKey[r.key()] = r
		}
	}
	l.rows = rows
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
