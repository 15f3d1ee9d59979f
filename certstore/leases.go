package certstore

import (
	"context"
	"fmt"
	"time"

	"sallyport/internal/printable"
)

const (
	maxLeaseName = 512 // characters
	maxHolder    = 255 // characters
)

// takeLease takes a lease, as SQLite and PostgreSQL take it.
const takeLease = `INSERT INTO SALLYPORT_LEASE AS L (NAME, HOLDER, ENDS_AT) VALUES (?, ?, {now} + ?)
	ON CONFLICT (NAME) DO UPDATE SET HOLDER = excluded.HOLDER, ENDS_AT = excluded.ENDS_AT
	WHERE L.HOLDER = excluded.HOLDER OR L.ENDS_AT < {now}`

// AcquireLease takes the lease of a name for a holder, and reports whether it has it now. One that is free, or whose term
// has ended, is taken; one that is the holder's already is renewed, and ends a term from now. Of any number that ask at
// once, one gets it. The term is positive, in steps of a millisecond, and ends by the clock of the database: it has not
// ended while less than the term has gone by since AcquireLease was called.
//
// Names have at most 512 characters and holders 255, with no control character and no space at their ends. A holder is
// whoever calls itself so: each process takes a name of its own. The errors match ErrInvalid or ErrReadOnly, or come from
// the database: whether the lease was taken is unknown then.
func (s *Store) AcquireLease(ctx context.Context, name, holder string, term time.Duration) (held bool, err error) {
	err = checkLease(name, holder)
	if err == nil && term <= 0 {
		err = invalid("a lease has a term of more than nothing")
	}
	if err == nil {
		err = s.commit(ctx, func(ctx context.Context, tx querier) error {
			held, err = s.acquire(ctx, tx, name, holder, term)
			return err
		})
	}
	if err != nil {
		return false, fmt.Errorf("take the lease of %s in the store: %w", printable.Quote(name), unknown(err))
	}
	return held, nil
}

// acquire takes a lease or not, and then looks at whose it is: nobody can change that before the transaction ends.
func (s *Store) acquire(ctx context.Context, tx querier, name, holder string, term time.Duration) (bool, error) {
	d := s.url.dialect
	milliseconds := (term-1)/time.Millisecond + 1
	if _, err := tx.ExecContext(ctx, d.at(d.takeLease), name, holder, int64(milliseconds)); err != nil {
		return false, err
	}
	holders, err := columns[string](ctx, tx, `SELECT HOLDER FROM SALLYPORT_LEASE WHERE NAME = ?`, name)
	return len(holders) == 1 && holders[0] == holder, err
}

// ReleaseLease ends the lease of a name if it is that holder's. Another one's stays, and none at all is no error. The
// errors are as those of AcquireLease.
func (s *Store) ReleaseLease(ctx context.Context, name, holder string) error {
	err := checkLease(name, holder)
	if err == nil {
		err = s.commit(ctx, func(ctx context.Context, tx querier) error {
			_, err := tx.ExecContext(ctx, `DELETE FROM SALLYPORT_LEASE WHERE NAME = ? AND HOLDER = ?`, name, holder)
			return err
		})
	}
	if err != nil {
		return fmt.Errorf("release the lease of %s in the store: %w", printable.Quote(name), unknown(err))
	}
	return nil
}

func checkLease(name, holder string) error {
	if err := checkText("the name of a lease", name, maxLeaseName); err != nil {
		return err
	}
	return checkText("the holder of a lease", holder, maxHolder)
}
