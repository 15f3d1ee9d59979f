package certstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"sallyport/internal/printable"
)

// A Copied tells what Copy did.
type Copied struct {
	Added   int // registrations that are new in the target
	Present int // that the target had already, the very same
	Values  int // values that are new in the target
	Denials int // entries of the deny list that are new in the target
	LeftOut LeftOut
}

// LeftOut is what a Store holds and Copy does not take along.
type LeftOut struct {
	Problems     []Problem   // registrations that can't be admitted
	Tombstones   int         // registrations that were removed
	Revisions    int         // registrations of revisions of an API, in WSO2's database
	OtherTenants map[int]int // registrations of other tenants, by TENANT_ID
	Columns      []string    // of AM_API_CLIENT_CERTIFICATE, that mean nothing here
	Values       []string    // names of values that the target has with another content, which stays
}

// Copy registers everything that List of from returns in to, and takes its values and its deny list along, in one
// transaction: all of it or, after an error, nothing. What to has already stays. A registration that contradicts one in to
// is an error matching ErrAliasTaken or ErrRegistered, which names the first hundred of them. A denial that can't be read
// is an error. Leases, quotas and configurations stay behind.
func Copy(ctx context.Context, from, to *Store) (done Copied, err error) {
	clients, problems, err := from.List(ctx)
	if err != nil {
		return Copied{}, err
	}
	if done.LeftOut, err = from.leftOut(ctx); err != nil {
		return Copied{}, err
	}
	done.LeftOut.Problems = problems
	values, err := from.allValues(ctx)
	if err != nil {
		return Copied{}, err
	}
	denials, unreadable, err := from.Denials(ctx)
	if err = errors.Join(append(unreadable, err)...); err != nil {
		return Copied{}, err
	}
	err = to.write(ctx, func(ctx context.Context, tx querier) (err error) {
		if done.Denials, err = addDenials(ctx, tx, denials); err != nil {
			return err
		}
		if done.Added, done.Present, err = to.takeOver(ctx, tx, clients); err != nil {
			return err
		}
		done.Values, done.LeftOut.Values, err = takeOverValues(ctx, tx, values)
		return err
	})
	if err != nil {
		return Copied{}, fmt.Errorf("copy registrations: %w", err)
	}
	return done, nil
}

// takeOver inserts what is not there.
func (s *Store) takeOver(ctx context.Context, tx querier, clients []Client) (added, present int, err error) {
	rows, err := s.rows(ctx, tx, "")
	if err != nil {
		return 0, 0, err
	}
	byName, byProof := make(map[name]row, len(rows)), make(map[proof]row, len(rows))
	for _, r := range rows {
		byName[name{r.api(), KeyType(r.keyType), r.alias}] = r
		if fingerprint, err := r.fingerprint(); err == nil {
			byProof[proof{r.api(), fingerprint}] = r
		}
	}
	var conflicts []error
	ids := map[API]int64{}
	for _, c := range clients {
		if r, ok := byName[c.name()]; ok {
			if r.holds(c) {
				present++
			} else {
				conflicts = append(conflicts, fmt.Errorf("%s of API %s (%s): %w, by another registration",
					printable.Quote(c.Alias), printable.Quote(c.API.String()), c.KeyType, ErrAliasTaken))
			}
			continue
		}
		if r, ok := byProof[c.proof()]; ok {
			conflicts = append(conflicts, fmt.Errorf("%s of API %s (%s): %w as %s (%s)",
				printable.Quote(c.Alias), printable.Quote(c.API.String()), c.KeyType, ErrRegistered, printable.Quote(r.alias), r.keyType))
			continue
		}
		if len(conflicts) > 0 {
			continue // nothing will be stored
		}
		if err := s.insertFor(ctx, tx, ids, c); err != nil {
			return 0, 0, err
		}
		added++
	}
	const most = 100
	if more := len(conflicts) - most; more > 0 {
		conflicts = append(conflicts[:most], fmt.Errorf("and %d more", more))
	}
	return added, present, errors.Join(conflicts...)
}

// allValues returns all values with their contents. WSO2's database has none, nor has one that only older programs opened.
func (s *Store) allValues(ctx context.Context) (list []Value, err error) {
	err = s.use(ctx, func(ctx context.Context, c *connection) error {
		if c.wso2 != nil {
			return nil
		}
		q := session{s.url.dialect, c.db}
		tables, err := columns[string](ctx, q, s.url.dialect.tables)
		if _, ok := nameIn(tables, "SALLYPORT_VALUE"); err != nil || !ok {
			return err
		}
		list, err = readValues(ctx, q, readContent, "")
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the values in the store: %w", err)
	}
	return list, nil
}

// takeOverValues inserts the values whose names are not there, and returns the names of those that differ.
func takeOverValues(ctx context.Context, tx querier, values []Value) (added int, differ []string, err error) {
	for _, v := range values {
		there, err := readValues(ctx, tx, readContent, ` WHERE NAME = ?`, v.Name)
		switch {
		case err != nil:
			return 0, nil, err
		case len(there) > 0 && !bytes.Equal(there[0].Content, v.Content):
			differ = append(differ, v.Name)
		case len(there) == 0:
			_, err := tx.ExecContext(ctx, `INSERT INTO SALLYPORT_VALUE (NAME, CHANGED_AT, CONTENT) VALUES (?, ?, ?)`,
				v.Name, v.Modified.UnixMilli(), v.Content)
			if err != nil {
				return 0, nil, err
			}
			added++
		}
	}
	return added, differ, nil
}

// insertFor inserts a registration, and its API if that isn't there. ids are the APIs that are known.
func (s *Store) insertFor(ctx context.Context, tx querier, ids map[API]int64, c Client) (err error) {
	id, ok := ids[c.API]
	if !ok {
		if id, err = s.apiRow(ctx, tx, c.API); errors.Is(err, ErrNotFound) {
			id, err = s.addAPI(ctx, tx, c.API)
		}
		if err != nil {
			return fmt.Errorf("API %s: %w", printable.Quote(c.API.String()), err)
		}
		ids[c.API] = id
	}
	return s.insert(ctx, tx, id, c)
}

// holds reports whether a row is that registration.
func (r row) holds(c Client) bool {
	got, err := r.client()
	return err == nil && got.Fingerprint == c.Fingerprint && got.Tier == c.Tier && slices.Equal(got.Scopes, c.Scopes) && got.Match.Equal(c.Match)
}

// copied are the columns that Copy takes along.
var copied = []string{
	"TENANT_ID", "ALIAS", "API_ID", "CERTIFICATE", "REMOVED", "TIER_NAME", "KEY_TYPE", "REVISION_UUID", "SCOPES", "FINGERPRINT", "LEAF_MATCH",
}

// leftOut counts what List leaves out.
func (s *Store) leftOut(ctx context.Context) (left LeftOut, err error) {
	err = s.use(ctx, func(ctx context.Context, c *connection) error {
		q := session{s.url.dialect, c.db}
		tables, err := columns[string](ctx, q, s.url.dialect.tables)
		if err != nil {
			return err
		}
		certificates, _ := nameIn(tables, certificateTable)
		apis, _ := nameIn(tables, apiTable)
		left, err = (&wso2{s.url.dialect, certificates, apis}).leftOut(ctx, q, s.opts.TenantID)
		return err
	})
	if err != nil {
		return LeftOut{}, fmt.Errorf("count what is left out: %w", err)
	}
	return left, nil
}

func (w *wso2) leftOut(ctx context.Context, q querier, tenant int) (left LeftOut, err error) {
	if left.OtherTenants, err = w.others(ctx, q, tenant); err != nil {
		return left, err
	}
	names, err := w.columnsOf(ctx, q, w.certificates)
	if err != nil {
		return left, err
	}
	left.Columns = slices.DeleteFunc(names, func(n string) bool {
		return slices.ContainsFunc(copied, func(known string) bool { return strings.EqualFold(known, n) })
	})
	l, err := w.layout(ctx, q)
	if err != nil {
		return left, err
	}
	if left.Tombstones, _, err = w.count(ctx, q, l, l.condition, tenant); err != nil || l.condition == "" {
		return left, err
	}
	_, left.Revisions, err = w.count(ctx, q, l, strings.Replace(l.condition, " = ", " <> ", 1), tenant)
	return left, err
}

// count counts a tenant's rows that were removed, and those that were not.
func (w *wso2) count(ctx context.Context, q querier, l layout, condition string, tenant int) (removed, live int, err error) {
	type group struct {
		removed any
		count   int
	}
	query := fmt.Sprintf("SELECT %s, COUNT(*) FROM %s WHERE %s = ?%s GROUP BY %s", l.removed, l.from, l.tenant, condition, l.removed)
	err = each(ctx, q, func(g *group) []any { return []any{&g.removed, &g.count} }, func(g group) {
		if gone, err := parseRemoved(g.removed); gone {
			removed += g.count
		} else if err == nil {
			live += g.count
		}
	}, query, append([]any{tenant}, l.args...)...)
	return removed, live, err
}
