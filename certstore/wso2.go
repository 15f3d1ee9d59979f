package certstore

import (
	"cmp"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"sallyport/internal/printable"
)

// The tables of WSO2 API Manager that hold the certificates.
const (
	certificateTable = "AM_API_CLIENT_CERTIFICATE"
	apiTable         = "AM_API"
)

// A wso2 is a database that WSO2 API Manager made and keeps, as of version 2.6 or later. It is only read, and told by its
// tables: it has none of ours. The names are as the database has them.
type wso2 struct {
	dialect            *dialect
	certificates, apis string
}

// errOwned matches ErrReadOnly.
const errOwned = ownedError("the store is another program's, the database of WSO2, and is only read: make the change there")

type ownedError string

func (e ownedError) Error() string      { return string(e) }
func (ownedError) Is(target error) bool { return target == ErrReadOnly }

// findWSO2 returns nil if the database is not WSO2's.
func (d *dialect) findWSO2(ctx context.Context, q querier) (*wso2, error) {
	tables, err := columns[string](ctx, q, d.tables)
	if err != nil {
		return nil, err
	}
	_, ours := nameIn(tables, "SALLYPORT_SCHEMA")
	certificates, theirs := nameIn(tables, certificateTable)
	if ours || !theirs {
		return nil, nil
	}
	apis, ok := nameIn(tables, apiTable)
	if !ok {
		return nil, fmt.Errorf("it has WSO2's table %s and none named %s that this user may read: "+
			"grant SELECT on both, or name another %s", certificateTable, apiTable, d.place())
	}
	w := &wso2{d, certificates, apis}
	names, err := w.columnsOf(ctx, q, certificates)
	if err != nil {
		return nil, err
	}
	if _, marked := nameIn(names, "FINGERPRINT"); marked { // MySQL hides what a user may not read
		return nil, fmt.Errorf("its table %s is one of Sallyport's, and there is no table SALLYPORT_SCHEMA that this user may read: "+
			"see docs/stores.md for the rights", certificateTable)
	}
	_, err = w.layout(ctx, q)
	return w, err
}

// nameIn finds a name, which databases keep in upper or lower case. Of several that differ in case, the very same counts.
func nameIn(names []string, name string) (string, bool) {
	if slices.Contains(names, name) {
		return name, true
	}
	i := slices.IndexFunc(names, func(s string) bool { return strings.EqualFold(s, name) })
	if i < 0 {
		return "", false
	}
	return names[i], true
}

// A layout is the SQL that the tables are read with. Which columns there are depends on WSO2's version: older ones have
// neither REVISION_UUID nor KEY_TYPE, so that all rows are the current API's, and PRODUCTION.
type layout struct {
	from        string // the tables, as C and A
	words       string // all that is read but the certificate; see wso2Row.places
	certificate string // CERTIFICATE
	tenant      string // TENANT_ID
	removed     string // REMOVED
	condition   string // which rows are the current API's, with a placeholder for each of args; "": all
	args        []any
}

// layout looks which columns there are. It is read anew each time: an upgrade of WSO2 adds some while a gateway runs.
func (w *wso2) layout(ctx context.Context, q querier) (l layout, err error) {
	certificate, err := w.columnsOf(ctx, q, w.certificates)
	if err != nil {
		return l, err
	}
	api, err := w.columnsOf(ctx, q, w.apis)
	if err != nil {
		return l, err
	}
	var errs []error
	column := func(alias string, names []string, table, name string) string {
		found, ok := nameIn(names, name)
		if !ok {
			errs = append(errs, fmt.Errorf("its table %s has no column %s: is it WSO2's?", table, name))
		}
		return alias + "." + w.dialect.quoted(found)
	}
	c := func(name string) string { return column("C", certificate, certificateTable, name) }
	a := func(name string) string { return column("A", api, apiTable, name) }

	keyType := "'" + string(Production) + "'"
	if _, ok := nameIn(certificate, "KEY_TYPE"); ok {
		keyType = c("KEY_TYPE")
	}
	if _, ok := nameIn(certificate, "REVISION_UUID"); ok {
		l.condition, l.args = " AND "+c("REVISION_UUID")+" = ?", []any{currentAPI}
	}
	l.tenant, l.removed, l.certificate = c("TENANT_ID"), c("REMOVED"), c("CERTIFICATE")
	l.words = strings.Join([]string{
		c("API_ID"), a("API_NAME"), a("API_VERSION"), c("ALIAS"), keyType, c("TIER_NAME"), l.removed,
	}, ", ")
	l.from = fmt.Sprintf("%s C LEFT JOIN %s A ON %s = %s",
		w.dialect.quoted(w.certificates), w.dialect.quoted(w.apis), a("API_ID"), c("API_ID"))
	return l, errors.Join(errs...)
}

// columnsOf asks the table itself, so that the right to read it suffices.
func (w *wso2) columnsOf(ctx context.Context, q querier, table string) ([]string, error) {
	rows, err := q.QueryContext(ctx, "SELECT * FROM "+w.dialect.quoted(table)+" WHERE 1 = 0")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	names, err := rows.Columns()
	return names, errors.Join(err, rows.Close(), rows.Err())
}

// quoted is a name in a statement.
func (d *dialect) quoted(name string) string {
	mark := `"`
	if d.backticks {
		mark = "`"
	}
	return mark + strings.ReplaceAll(name, mark, mark+mark) + mark
}

// A wso2Row is a row of a database that other programs fill, in which columns may be null that ours has not.
type wso2Row struct {
	row
	alias, keyType sql.NullString
	removed        any
}

func (r *wso2Row) places() []any {
	return []any{&r.apiID, &r.name, &r.version, &r.alias, &r.keyType, &r.tier, &r.removed, &r.certificate}
}

// each calls f with the tenant's live rows, and with those of which that can't be told. In place of the certificate they
// have what the expression says, which has a %s for it.
func (w *wso2) each(ctx context.Context, q querier, tenant int, expression string, f func(row)) error {
	l, err := w.layout(ctx, q)
	if err != nil {
		return err
	}
	query := fmt.Sprintf("SELECT %s, %s FROM %s WHERE %s = ?%s",
		l.words, fmt.Sprintf(expression, l.certificate), l.from, l.tenant, l.condition)
	return each(ctx, q, (*wso2Row).places, func(r wso2Row) {
		removed, err := parseRemoved(r.removed)
		if removed {
			return
		}
		r.row.alias, r.row.keyType, r.fault = r.alias.String, r.keyType.String, err
		f(r.row)
	}, query, append([]any{tenant}, l.args...)...)
}

func (w *wso2) rows(ctx context.Context, q querier, tenant int) (rows []row, err error) {
	err = w.each(ctx, q, tenant, "%s", func(r row) { rows = append(rows, r) })
	return rows, err
}

// others counts the live rows of other tenants.
func (w *wso2) others(ctx context.Context, q querier, tenant int) (map[int]int, error) {
	l, err := w.layout(ctx, q)
	if err != nil {
		return nil, err
	}
	type group struct {
		tenant, count int
		removed       any
	}
	query := fmt.Sprintf("SELECT %s, %s, COUNT(*) FROM %s WHERE %s <> ?%s GROUP BY %s, %s",
		l.tenant, l.removed, l.from, l.tenant, l.condition, l.tenant, l.removed)
	counts := map[int]int{}
	err = each(ctx, q, func(g *group) []any { return []any{&g.tenant, &g.removed, &g.count} }, func(g group) {
		if removed, _ := parseRemoved(g.removed); !removed {
			counts[g.tenant] += g.count
		}
	}, query, append([]any{tenant}, l.args...)...)
	return counts, err
}

// digest returns a number that differs once other rows than before are read, in whatever order. WSO2 leaves no mark of a
// change, so the rows themselves are read, with hashes of their certificates where the database makes them.
func (w *wso2) digest(ctx context.Context, q querier, tenant int) (sum uint64, err error) {
	h := sha256.New()
	add := func() {
		sum += binary.BigEndian.Uint64(h.Sum(nil))
		h.Reset()
	}
	err = w.each(ctx, q, tenant, cmp.Or(w.dialect.sum, "%s"), func(r row) {
		fmt.Fprintf(h, "%d %q %q %q %q %q %v %v ", r.apiID, r.name.String, r.version.String, r.alias, r.keyType, r.tier.String,
			r.name.Valid && r.version.Valid, r.fault != nil)
		h.Write(r.certificate)
		add()
	})
	if err != nil {
		return 0, err
	}
	others, err := w.others(ctx, q, tenant)
	for tenant, n := range others {
		fmt.Fprint(h, tenant, n)
		add()
	}
	return sum, err
}

// parseRemoved reads REMOVED, which is a boolean, a bit or a number. Whatever else it holds is an error: the row is not
// known to be live.
func parseRemoved(v any) (bool, error) {
	switch v := v.(type) {
	case bool:
		return v, nil
	case int64:
		if v == 0 || v == 1 {
			return v == 1, nil
		}
	case float64:
		if v == 0 || v == 1 {
			return v == 1, nil
		}
	case []byte:
		if len(v) == 1 && v[0] <= 1 { // a bit of MySQL
			return v[0] == 1, nil
		}
		return parseRemoved(string(v))
	case string:
		switch strings.ToLower(v) {
		case "0", "f", "false":
			return false, nil
		case "1", "t", "true":
			return true, nil
		}
	}
	return false, fmt.Errorf("its column REMOVED holds %s: whether it was removed can't be told", printable.Quote(fmt.Sprint(v)))
}
