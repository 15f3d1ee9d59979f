package certstore

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// A Quota is what was counted of one day or month quota in one period.
type Quota struct {
	Tag   string    // names the bucket, a hash in hex: at most 32 characters
	Unit  string    // of the period: day or month, at most 8 characters
	Start time.Time // of the period, in whole seconds; it ends before End
	End   time.Time
	Used  int64 // calls
}

// quotaPlaces are the placeholders of one quota.
const quotaPlaces = `(?, ?, ?, ?, ?)`

// keepQuota stores one quota, as SQLite and PostgreSQL take it.
const keepQuota = `INSERT INTO SALLYPORT_QUOTA AS Q (TAG, UNIT, STARTS, ENDS, USED) VALUES ` + quotaPlaces + `
	ON CONFLICT (TAG, UNIT) DO UPDATE SET STARTS = excluded.STARTS, ENDS = excluded.ENDS,
		USED = CASE WHEN Q.ENDS > excluded.STARTS AND Q.USED > excluded.USED THEN Q.USED ELSE excluded.USED END
	WHERE excluded.ENDS > Q.STARTS`

// KeepQuotas stores quotas, so that they outlive the processes that count. What is stored of a period never becomes
// less: several processes may keep what each of them knows of the same bucket. It is one transaction, durable when the
// error is nil; the errors are ErrReadOnly, or come from the database.
func (s *Store) KeepQuotas(ctx context.Context, quotas []Quota) error {
	keep := keepOneByOne
	if s.url.dialect.server() {
		keep = keepTogether
		// Its writers lock rows, and would wait for each other in a ring unless all keep to one order.
		quotas = slices.SortedStableFunc(slices.Values(quotas), compareBuckets)
	}
	err := s.commit(ctx, func(ctx context.Context, tx querier) error {
		return keep(ctx, tx, s.url.dialect.keepQuota, quotas)
	})
	if err != nil {
		return fmt.Errorf("keep quotas in the store: %w", err)
	}
	return nil
}

func compareBuckets(a, b Quota) int {
	return cmp.Or(cmp.Compare(a.Tag, b.Tag), cmp.Compare(a.Unit, b.Unit))
}

func (q Quota) columns() []any { return []any{q.Tag, q.Unit, q.Start.Unix(), q.End.Unix(), q.Used} }

func keepOneByOne(ctx context.Context, tx querier, statement string, quotas []Quota) error {
	keep, err := tx.PrepareContext(ctx, statement)
	if err != nil {
		return err
	}
	defer keep.Close()
	for _, q := range quotas {
		if _, err := keep.ExecContext(ctx, q.columns()...); err != nil {
			return err
		}
	}
	return nil
}

// quotasAtOnce is how many quotas one statement keeps. Each statement is a round trip to the server.
const quotasAtOnce = 500

// keepTogether keeps many sorted quotas with each statement, and each bucket at most once.
func keepTogether(ctx context.Context, tx querier, statement string, quotas []Quota) error {
	for len(quotas) > 0 {
		args := quotas[0].columns()
		n := 1
		for n < min(len(quotas), quotasAtOnce) && compareBuckets(quotas[n-1], quotas[n]) != 0 {
			args = append(args, quotas[n].columns()...)
			n++
		}
		many := strings.Replace(statement, quotaPlaces, quotaPlaces+strings.Repeat(", "+quotaPlaces, n-1), 1)
		if _, err := tx.ExecContext(ctx, many, args...); err != nil {
			return err
		}
		quotas = quotas[n:]
	}
	return nil
}

// ForgetQuotas removes those whose period ended before a moment.
func (s *Store) ForgetQuotas(ctx context.Context, before time.Time) error {
	err := s.commit(ctx, func(ctx context.Context, tx querier) error {
		_, err := tx.ExecContext(ctx, `DELETE FROM SALLYPORT_QUOTA WHERE ENDS < ?`, before.Unix())
		return err
	})
	if err != nil {
		return fmt.Errorf("remove old quotas from the store: %w", err)
	}
	return nil
}

// Quotas calls each with every quota whose period ends after a moment. WSO2's database has none.
func (s *Store) Quotas(ctx context.Context, after time.Time, each func(Quota)) error {
	err := s.use(ctx, func(ctx context.Context, c *connection) error {
		if c.wso2 != nil {
			return nil
		}
		db := session{s.url.dialect, c.db}
		rows, err := db.QueryContext(ctx, `SELECT TAG, UNIT, STARTS, ENDS, USED FROM SALLYPORT_QUOTA WHERE ENDS > ?`, after.Unix())
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			heard(ctx)
			var q Quota
			var start, end int64
			if err := rows.Scan(&q.Tag, &q.Unit, &start, &end, &q.Used); err != nil {
				return err
			}
			q.Start, q.End = time.Unix(start, 0), time.Unix(end, 0)
			each(q)
		}
		return rows.Err()
	})
	if err != nil {
		return fmt.Errorf("read quotas from the store: %w", err)
	}
	return nil
}
