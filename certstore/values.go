package certstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"sallyport/internal/printable"
)

// A Value is what the gateways of a cluster share under a name. The Store keeps content as it is given: who writes it
// encrypts it. WSO2's database has none.
type Value struct {
	// Name is a path as fs.ValidPath takes it, other than ".", of at most 512 characters without a control character or a
	// space at its ends. Names are compared and sorted byte for byte.
	Name     string
	Size     int64 // of the content, in bytes
	Modified time.Time
	Content  []byte // nil in what Values returns
}

// MaxValue is the largest content of a Value, in bytes.
const MaxValue = 1 << 20

const maxValueName = 512 // characters

// putValue stores one value, as SQLite and PostgreSQL take it.
const putValue = `INSERT INTO SALLYPORT_VALUE (NAME, CHANGED_AT, CONTENT) VALUES (?, {now}, ?)
	ON CONFLICT (NAME) DO UPDATE SET CHANGED_AT = excluded.CHANGED_AT, CONTENT = excluded.CONTENT`

// at is a statement in which {now} is the time by the database's clock, in milliseconds since 1970.
func (d *dialect) at(statement string) string { return strings.ReplaceAll(statement, "{now}", d.now) }

func checkValueName(name string) error {
	if err := checkText("the name of a value", name, maxValueName); err != nil {
		return err
	}
	if name == "." || !fs.ValidPath(name) {
		return invalid("the name of a value is a path without an empty element, \".\" or \"..\"")
	}
	return nil
}

// unknown is an error of the database, which never says that a value isn't there: a database that is gone does not either.
func unknown(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return away{err}
	}
	return err
}

// PutValue stores a value in the place of what has its name. It is durable when the error is nil; the errors match
// ErrInvalid or ErrReadOnly, or come from the database. Version stays what it is.
func (s *Store) PutValue(ctx context.Context, name string, content []byte) error {
	err := checkValueName(name)
	if err == nil && len(content) > MaxValue {
		err = invalid("a value of %d bytes is larger than %d", len(content), MaxValue)
	}
	if err == nil {
		err = s.commit(ctx, func(ctx context.Context, tx querier) error {
			d := s.url.dialect
			_, err := tx.ExecContext(ctx, d.at(d.putValue), name, present(content))
			return err
		})
	}
	if err != nil {
		return fmt.Errorf("write %s to the store: %w", printable.Quote(name), unknown(err))
	}
	return nil
}

// present is content that no driver takes for NULL.
func present(content []byte) []byte {
	if content == nil {
		return []byte{}
	}
	return content
}

// Value returns a value. One that isn't there matches fs.ErrNotExist, and no other error does.
func (s *Store) Value(ctx context.Context, name string) (Value, error) {
	var found []Value
	err := checkValueName(name)
	if err == nil {
		found, err = s.values(ctx, readContent, ` WHERE NAME = ?`, name)
	}
	if err == nil && len(found) == 0 {
		return Value{}, fmt.Errorf("read %s from the store: %w", printable.Quote(name), fs.ErrNotExist)
	}
	if err != nil {
		return Value{}, fmt.Errorf("read %s from the store: %w", printable.Quote(name), err)
	}
	return found[0], nil
}

// Values returns the value of that name and all below it, as "a" has "a/b" below it and not "ab", by name and without
// their contents. "" has all values below it.
func (s *Store) Values(ctx context.Context, name string) (list []Value, err error) {
	if name == "" {
		list, err = s.values(ctx, leaveContent, "")
	} else if err = checkValueName(name); err == nil {
		list, err = s.values(ctx, leaveContent, ` WHERE`+belowName, below(name)...)
	}
	if err != nil {
		return nil, fmt.Errorf("list the values in the store: %w", err)
	}
	return list, nil
}

// belowName is the condition for a value and all below it, with below for its placeholders.
const belowName = ` (NAME = ? OR NAME >= ? AND NAME < ?)`

// below names a value, and the bounds of what is below it: 0 is the byte after the slash.
func below(name string) []any { return []any{name, name + "/", name + "0"} }

// RemoveValues removes the value of that name and all below it. What isn't there is no error; the others match ErrInvalid
// or ErrReadOnly, or come from the database.
func (s *Store) RemoveValues(ctx context.Context, name string) error {
	err := checkValueName(name)
	if err == nil {
		err = s.commit(ctx, func(ctx context.Context, tx querier) error {
			_, err := tx.ExecContext(ctx, `DELETE FROM SALLYPORT_VALUE WHERE`+belowName, below(name)...)
			return err
		})
	}
	if err != nil {
		return fmt.Errorf("remove %s from the store: %w", printable.Quote(name), unknown(err))
	}
	return nil
}

// What a statement reads of a content. Another program may have written more than MaxValue.
var (
	readContent  = fmt.Sprintf(`CASE WHEN LENGTH(CONTENT) <= %d THEN CONTENT END`, MaxValue)
	leaveContent = `NULL`
)

// values reads the values that a condition names.
func (s *Store) values(ctx context.Context, content, condition string, args ...any) (list []Value, err error) {
	err = s.readOurs(ctx, func(ctx context.Context, q querier) error {
		list, err = readValues(ctx, q, content, condition, args...)
		return err
	})
	if err != nil {
		return nil, unknown(err)
	}
	return list, nil
}

func readValues(ctx context.Context, q querier, content, condition string, args ...any) ([]Value, error) {
	type row struct {
		Value
		changed int64
	}
	rows, err := collect(ctx, q, func(r *row) []any { return []any{&r.Name, &r.changed, &r.Size, &r.Content} },
		`SELECT NAME, CHANGED_AT, LENGTH(CONTENT), `+content+` FROM SALLYPORT_VALUE`+condition+` ORDER BY NAME`, args...)
	if err != nil {
		return nil, err
	}
	list := make([]Value, len(rows))
	for i, r := range rows {
		list[i] = r.Value
		list[i].Modified = time.UnixMilli(r.changed)
		if content == leaveContent {
			continue
		}
		if r.Size > MaxValue {
			return nil, fmt.Errorf("%s has %d bytes, more than %d: another program wrote it: remove it",
				printable.Quote(r.Name), r.Size, MaxValue)
		}
		list[i].Content = present(r.Content)
	}
	return list, nil
}
