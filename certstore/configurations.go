package certstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
	"unicode/utf8"
)

// A Configuration is one version of the files that the gateways of a cluster share. The Store keeps content as it is
// given: who writes it encrypts it and makes the digest.
type Configuration struct {
	Version    int // from 1; the highest is the current one
	CreatedAt  time.Time
	CreatedBy  string // USER@HOST
	Digest     string // that vouches for the files, at most 64 characters
	KeyID      string // names the key that contents are encrypted under; "": they are not
	RollbackOf int    // the version whose files were taken again; 0: none
	Files      int    // how many it has
}

// A ConfigurationFile is one file of a Configuration.
type ConfigurationFile struct {
	Path    string // at most 255 characters
	Content []byte
}

// A Node is what a gateway says of itself.
type Node struct {
	Name    string // at most 255 characters
	Version int    // of the Configuration that it serves; 0: none
	Trouble string // what keeps it from serving the current one as a whole; "": nothing
	SeenAt  time.Time
}

// KeptConfigurations is how many versions AddConfiguration leaves in the store.
const KeptConfigurations = 20

// nodeMemory is how long a gateway that is gone stays among the Nodes, once configurations are written.
const nodeMemory = 7 * 24 * time.Hour

// ErrSuperseded says that another version was written since the one that a new one was to follow.
var ErrSuperseded = errors.New("another version was written meanwhile: look at it, and try again")

// AddConfiguration writes a version, which has to follow the current one immediately, and removes all but the newest
// KeptConfigurations. It is one transaction, durable when the error is nil. The errors match ErrSuperseded or
// ErrReadOnly, or come from the database.
func (s *Store) AddConfiguration(ctx context.Context, c Configuration, files []ConfigurationFile) error {
	err := s.commit(ctx, func(ctx context.Context, tx querier) error {
		current, err := newest(ctx, tx)
		if err != nil {
			return err
		}
		if current.Version != c.Version-1 {
			return ErrSuperseded
		}
		return addConfiguration(ctx, tx, c, files)
	})
	if err != nil && !errors.Is(err, ErrSuperseded) {
		// Of two that write at once, the primary key has one fail, each database in its own words.
		current, broken := s.CurrentConfiguration(context.WithoutCancel(ctx))
		if broken == nil && current.Version >= c.Version && current.Digest != c.Digest {
			err = ErrSuperseded
		}
	}
	if err != nil {
		return fmt.Errorf("write version %d of the configuration: %w", c.Version, err)
	}
	return nil
}

func addConfiguration(ctx context.Context, tx querier, c Configuration, files []ConfigurationFile) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO SALLYPORT_CONFIG (VERSION, CREATED_AT, CREATED_BY, DIGEST, KEY_ID, ROLLBACK_OF)
		VALUES (?, ?, ?, ?, ?, ?)`, c.Version, c.CreatedAt.Unix(), clip(c.CreatedBy, 255), c.Digest, c.KeyID, c.RollbackOf)
	if err != nil {
		return err
	}
	for _, f := range files {
		_, err := tx.ExecContext(ctx, `INSERT INTO SALLYPORT_CONFIG_FILE (VERSION, PATH, CONTENT) VALUES (?, ?, ?)`,
			c.Version, f.Path, f.Content)
		if err != nil {
			return err
		}
	}
	for _, table := range []string{"SALLYPORT_CONFIG_FILE", "SALLYPORT_CONFIG"} {
		if _, err := tx.ExecContext(ctx, `DELETE FROM `+table+` WHERE VERSION <= ?`, c.Version-KeptConfigurations); err != nil {
			return err
		}
	}
	_, err = tx.ExecContext(ctx, `DELETE FROM SALLYPORT_NODE WHERE SEEN_AT < ?`, c.CreatedAt.Add(-nodeMemory).Unix())
	return err
}

// clip cuts a text to a number of characters that a column has.
func clip(text string, most int) string {
	if utf8.RuneCountInString(text) <= most {
		return text
	}
	return string([]rune(text)[:most-1]) + "…"
}

// errNotOurs says that the database is one that WSO2 made.
var errNotOurs = errors.New("it is WSO2's database, which keeps no configuration and no values: name another store")

// readOurs calls f with a database that has tables of ours.
func (s *Store) readOurs(ctx context.Context, f func(context.Context, querier) error) error {
	return s.use(ctx, func(ctx context.Context, c *connection) error {
		if c.wso2 != nil {
			return errNotOurs
		}
		return f(ctx, session{s.url.dialect, c.db})
	})
}

const selectConfigurations = `SELECT VERSION, CREATED_AT, CREATED_BY, DIGEST, KEY_ID, ROLLBACK_OF FROM SALLYPORT_CONFIG`

func configurations(ctx context.Context, q querier, query string) ([]Configuration, error) {
	type row struct {
		Configuration
		created int64
	}
	rows, err := collect(ctx, q, func(r *row) []any {
		return []any{&r.Version, &r.created, &r.CreatedBy, &r.Digest, &r.KeyID, &r.RollbackOf}
	}, query)
	list := make([]Configuration, len(rows))
	for i, r := range rows {
		list[i] = r.Configuration
		list[i].CreatedAt = time.Unix(r.created, 0)
	}
	return list, err
}

// newest returns the current version, one with the number 0 if there is none.
func newest(ctx context.Context, q querier) (Configuration, error) {
	list, err := configurations(ctx, q, selectConfigurations+` WHERE VERSION = (SELECT MAX(VERSION) FROM SALLYPORT_CONFIG)`)
	if err != nil || len(list) == 0 {
		return Configuration{}, err
	}
	return list[0], nil
}

// CurrentConfiguration returns the current version without Files, one with the number 0 if there is none. It costs a
// database one look at an index.
func (s *Store) CurrentConfiguration(ctx context.Context) (c Configuration, err error) {
	err = s.readOurs(ctx, func(ctx context.Context, q querier) error {
		c, err = newest(ctx, q)
		return err
	})
	if err != nil {
		return Configuration{}, fmt.Errorf("look for the current version of the configuration: %w", err)
	}
	return c, nil
}

// Configurations returns all versions, the current one first.
func (s *Store) Configurations(ctx context.Context) (list []Configuration, err error) {
	type count struct{ version, files int }
	var counts []count
	err = s.readOurs(ctx, func(ctx context.Context, q querier) error {
		if list, err = configurations(ctx, q, selectConfigurations); err != nil {
			return err
		}
		counts, err = collect(ctx, q, func(c *count) []any { return []any{&c.version, &c.files} },
			`SELECT VERSION, COUNT(*) FROM SALLYPORT_CONFIG_FILE GROUP BY VERSION`)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list the versions of the configuration: %w", err)
	}
	for i := range list {
		for _, c := range counts {
			if c.version == list[i].Version {
				list[i].Files = c.files
			}
		}
	}
	slices.SortFunc(list, func(a, b Configuration) int { return cmp.Compare(b.Version, a.Version) })
	return list, nil
}

// ConfigurationFiles returns the files of a version by path. One that isn't there has none.
func (s *Store) ConfigurationFiles(ctx context.Context, version int) (files []ConfigurationFile, err error) {
	err = s.readOurs(ctx, func(ctx context.Context, q querier) error {
		files, err = collect(ctx, q, func(f *ConfigurationFile) []any { return []any{&f.Path, &f.Content} },
			`SELECT PATH, CONTENT FROM SALLYPORT_CONFIG_FILE WHERE VERSION = ?`, version)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read version %d of the configuration: %w", version, err)
	}
	slices.SortFunc(files, func(a, b ConfigurationFile) int { return cmp.Compare(a.Path, b.Path) })
	return files, nil
}

// KeepNode writes what a gateway says of itself in the place of what it said before. Its times are whole seconds.
func (s *Store) KeepNode(ctx context.Context, n Node) error {
	trouble := clip(n.Trouble, 1024)
	err := s.commit(ctx, func(ctx context.Context, tx querier) error {
		result, err := tx.ExecContext(ctx, `UPDATE SALLYPORT_NODE SET VERSION = ?, STATE = ?, SEEN_AT = ? WHERE NODE = ?`,
			n.Version, trouble, n.SeenAt.Unix(), n.Name)
		if err != nil {
			return err
		}
		if found, err := result.RowsAffected(); err != nil || found > 0 {
			return err
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO SALLYPORT_NODE (NODE, VERSION, STATE, SEEN_AT) VALUES (?, ?, ?, ?)`,
			n.Name, n.Version, trouble, n.SeenAt.Unix())
		return err
	})
	if err != nil {
		return fmt.Errorf("tell the store of this gateway: %w", err)
	}
	return nil
}

// Nodes returns what gateways have said of themselves, by name.
func (s *Store) Nodes(ctx context.Context) (nodes []Node, err error) {
	type row struct {
		Node
		seen int64
	}
	var rows []row
	err = s.readOurs(ctx, func(ctx context.Context, q querier) error {
		rows, err = collect(ctx, q, func(r *row) []any { return []any{&r.Name, &r.Version, &r.Trouble, &r.seen} },
			`SELECT NODE, VERSION, STATE, SEEN_AT FROM SALLYPORT_NODE`)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list gateways: %w", err)
	}
	for _, r := range rows {
		r.SeenAt = time.Unix(r.seen, 0)
		nodes = append(nodes, r.Node)
	}
	slices.SortFunc(nodes, func(a, b Node) int { return cmp.Compare(a.Name, b.Name) })
	return nodes, nil
}
