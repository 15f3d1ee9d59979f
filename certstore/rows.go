package certstore

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"sallyport/policy/certrule"
)

const (
	// currentAPI is REVISION_UUID of the API as it is edited; WSO2 keeps copies for its deployed revisions.
	currentAPI = "Current API"
	// provider is API_PROVIDER of the APIs that are created here.
	provider = "sallyport"
)

// A row is a row of AM_API_CLIENT_CERTIFICATE with its API's name, not yet validated.
type row struct {
	apiID        int64
	name         sql.NullString
	version      sql.NullString
	alias        string
	keyType      string
	tier, scopes sql.NullString
	match        sql.NullString // of a CA; NULL: every leaf counts
	certificate  []byte
	digest       sql.NullString // of the certificate, as the database has it
	known        *Client        // what the row is, once that is known, or
	fault        error          // why it is nothing
	seen         uint64         // in which turn of List
}

// rows reads the tenant's live rows that match the condition, which is SQL with a placeholder for each of args.
func (s *Store) rows(ctx context.Context, q querier, condition string, args ...any) ([]row, error) {
	return s.rowsWith(ctx, q, matchColumn, "NULL", condition, args...)
}

// matchColumn is the expression for a row's match, where there is one.
const matchColumn = "C.LEAF_MATCH"

// rowsWith is rows with these expressions for the match and the digest.
func (s *Store) rowsWith(ctx context.Context, q querier, match, digest, condition string, args ...any) ([]row, error) {
	query := `SELECT C.API_ID, A.API_NAME, A.API_VERSION, C.ALIAS, C.KEY_TYPE, C.TIER_NAME, C.SCOPES, ` + match + `, ` + digest + `, C.CERTIFICATE
		FROM AM_API_CLIENT_CERTIFICATE C LEFT JOIN AM_API A ON A.API_ID = C.API_ID` + liveRows
	return collect(ctx, q, func(r *row) []any {
		return []any{&r.apiID, &r.name, &r.version, &r.alias, &r.keyType, &r.tier, &r.scopes, &r.match, &r.digest, &r.certificate}
	}, query+condition, append(s.liveArgs(), args...)...)
}

// liveRows is the condition for a tenant's live rows, with liveArgs for its placeholders.
const liveRows = ` WHERE C.TENANT_ID = ? AND C.REMOVED = ? AND C.REVISION_UUID = ?`

func (s *Store) liveArgs() []any { return []any{s.opts.TenantID, false, currentAPI} }

// others counts the live rows of other tenants.
func (s *Store) others(ctx context.Context, c *connection) (map[int]int, error) {
	q := session{s.url.dialect, c.db}
	if c.wso2 != nil {
		return c.wso2.others(ctx, q, s.opts.TenantID)
	}
	const query = `SELECT TENANT_ID, COUNT(*) FROM AM_API_CLIENT_CERTIFICATE
		WHERE TENANT_ID <> ? AND REMOVED = ? AND REVISION_UUID = ? GROUP BY TENANT_ID`
	type group struct{ tenant, count int }
	counts := map[int]int{}
	err := each(ctx, q, func(g *group) []any { return []any{&g.tenant, &g.count} },
		func(g group) { counts[g.tenant] = g.count }, query, s.opts.TenantID, false, currentAPI)
	return counts, err
}

// find returns the one live row of an alias. An empty keyType means the only one there is.
func (s *Store) find(ctx context.Context, q querier, api API, keyType KeyType, alias string) (row, error) {
	return s.findWith(ctx, q, matchColumn, api, keyType, alias)
}

// findWith is find with this expression for the match.
func (s *Store) findWith(ctx context.Context, q querier, match string, api API, keyType KeyType, alias string) (row, error) {
	apiID, err := s.apiRow(ctx, q, api)
	if err != nil {
		return row{}, err
	}
	rows, err := s.rowsWith(ctx, q, match, "NULL", " AND C.API_ID = ? AND C.ALIAS = ?", apiID, alias)
	if err != nil {
		return row{}, err
	}
	return only(rows, keyType)
}

// only returns the one of an alias's rows that has the key type, or the only one there is if that is empty.
func only(rows []row, keyType KeyType) (row, error) {
	found := slices.DeleteFunc(rows, func(r row) bool { return keyType != "" && r.keyType != string(keyType) })
	switch len(found) {
	case 0:
		return row{}, ErrNotFound
	case 1:
		return found[0], nil
	}
	words := make([]string, len(found))
	for i, r := range found {
		words[i] = r.keyType
	}
	return row{}, invalid("it is registered as %s: name its key type", strings.Join(words, " and as "))
}

// apiRow returns API_ID of an API, or ErrNotFound. In a database that other programs fill, two providers may
// have an API of the same name and version: that is ambiguous, an error.
func (s *Store) apiRow(ctx context.Context, q querier, api API) (int64, error) {
	ids, err := columns[int64](ctx, q,
		`SELECT API_ID FROM AM_API WHERE API_NAME = ? AND API_VERSION = ?`, api.Name, api.Version)
	switch {
	case err != nil:
		return 0, err
	case len(ids) == 0:
		return 0, ErrNotFound
	case len(ids) > 1:
		return 0, errSeveralAPIs
	}
	return ids[0], nil
}

var errSeveralAPIs = invalid("several APIs have that name and version")

func (s *Store) addAPI(ctx context.Context, tx querier, api API) (int64, error) {
	_, err := tx.ExecContext(ctx, `INSERT INTO AM_API (API_UUID, API_PROVIDER, API_NAME, API_VERSION) VALUES (?, ?, ?, ?)`,
		newUUID(), provider, api.Name, api.Version)
	if err != nil {
		return 0, err
	}
	return s.apiRow(ctx, tx, api)
}

// newUUID makes a random UUID (RFC 9562, version 4).
func newUUID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func (s *Store) insert(ctx context.Context, tx querier, apiID int64, c Client) error {
	scopes := sql.NullString{String: strings.Join(c.Scopes, " "), Valid: len(c.Scopes) > 0}
	var match sql.NullString
	if c.Match != nil {
		match = sql.NullString{String: c.Match.Text(), Valid: true}
		if err := needMatch(ctx, tx); err != nil {
			return err
		}
	}
	_, err := tx.ExecContext(ctx, `INSERT INTO AM_API_CLIENT_CERTIFICATE
		(TENANT_ID, ALIAS, API_ID, CERTIFICATE, REMOVED, TIER_NAME, KEY_TYPE, REVISION_UUID, SCOPES, FINGERPRINT, LEAF_MATCH)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		s.opts.TenantID, c.Alias, apiID, encodeStored(c.Certificate), false, c.Tier, string(c.KeyType), currentAPI, scopes,
		hex.EncodeToString(c.Fingerprint[:]), match)
	return err
}

// matchVersion is the version of the tables that has LEAF_MATCH.
const matchVersion = 6

// needMatch keeps out programs that don't know LEAF_MATCH: one that replaced the row would leave it out, and admit what it
// was to keep out. Until a row has a match they may share the database.
func needMatch(ctx context.Context, tx querier) error { return needVersion(ctx, tx, matchVersion) }

// needVersion keeps out programs that don't know a version of the tables, from now on.
func needVersion(ctx context.Context, tx querier, version int) error {
	needs, err := columns[int](ctx, tx, `SELECT NEEDS FROM SALLYPORT_SCHEMA WHERE VERSION = ?`, version)
	if err != nil || len(needs) == 1 && needs[0] >= version {
		return err
	}
	_, err = tx.ExecContext(ctx, `UPDATE SALLYPORT_SCHEMA SET NEEDS = ? WHERE VERSION = ?`, version, version)
	return err
}

// identify writes the fingerprint of a live row. A row that cannot be read has none.
func (s *Store) identify(ctx context.Context, tx querier, r row) error {
	fingerprint, err := r.fingerprint()
	if err != nil {
		return nil
	}
	_, err = tx.ExecContext(ctx, `UPDATE AM_API_CLIENT_CERTIFICATE SET FINGERPRINT = ?`+whichRow,
		append([]any{hex.EncodeToString(fingerprint[:])}, s.key(r, false)...)...)
	return err
}

// whichRow selects the row with the given key.
const whichRow = ` WHERE TENANT_ID = ? AND API_ID = ? AND ALIAS = ? AND KEY_TYPE = ? AND REVISION_UUID = ? AND REMOVED = ?`

func (s *Store) key(r row, removed bool) []any {
	return []any{s.opts.TenantID, r.apiID, r.alias, r.keyType, currentAPI, removed}
}

// bury turns a live row into the tombstone of its alias. The primary key has room for one only, so an
// earlier tombstone is deleted.
func (s *Store) bury(ctx context.Context, tx querier, r row) error {
	if _, err := tx.ExecContext(ctx, `DELETE FROM AM_API_CLIENT_CERTIFICATE`+whichRow, s.key(r, true)...); err != nil {
		return err
	}
	result, err := tx.ExecContext(ctx, `UPDATE AM_API_CLIENT_CERTIFICATE SET REMOVED = ?`+whichRow,
		append([]any{true}, s.key(r, false)...)...)
	if err != nil {
		return err
	}
	switch n, err := result.RowsAffected(); {
	case err != nil:
		return err
	case n != 1:
		return fmt.Errorf("%d rows were marked as removed instead of one", n)
	}
	return nil
}

func (r *row) api() API { return API{r.name.String, r.version.String} }

// client returns the row as a Client, or why it is not valid.
func (r *row) client() (Client, error) {
	cert, err := parseStored(r.certificate)
	if err != nil {
		return Client{}, err
	}
	return r.with(cert)
}

func (r *row) with(cert *x509.Certificate) (Client, error) {
	if r.fault != nil {
		return Client{}, r.fault
	}
	if !r.name.Valid || !r.version.Valid {
		return Client{}, errors.New("its API is unknown")
	}
	match, err := r.matcher()
	if err != nil {
		return Client{}, err
	}
	return Client{
		API:         r.api(),
		Alias:       r.alias,
		KeyType:     KeyType(r.keyType),
		Tier:        r.tier.String,
		Scopes:      splitScopes(r.scopes.String),
		Certificate: cert,
		Match:       match,
		Source:      InStore,
	}.complete()
}

// matcher returns the row's match, nil if it has none.
func (r *row) matcher() (*certrule.Matcher, error) {
	if !r.match.Valid {
		return nil, nil
	}
	m, err := certrule.Parse(r.match.String)
	if err != nil {
		return nil, fmt.Errorf("its match: %w", err)
	}
	return m, nil
}

// splitScopes splits what insert joined. It does not check the scopes; complete does.
func splitScopes(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, " ")
}

// fingerprint returns that of the row's certificate, in whatever form it is stored. The certificate is not parsed.
func (r *row) fingerprint() ([32]byte, error) {
	der, err := storedDER(r.certificate)
	if err != nil {
		return [32]byte{}, err
	}
	return sha256.Sum256(der), nil
}

// admit separates valid rows from invalid ones, and reads those that were not read yet. Of rows that contradict each other
// none is admitted: whichever was chosen could be the wrong one.
func (l *listed) admit(rows []*row) (clients []Client, problems []Problem) {
	if l.holders == nil {
		l.ids, l.several, l.holders = map[API]int64{}, map[API]bool{}, make(map[proof]*row, len(rows))
	}
	defer func() { clear(l.ids); clear(l.several); clear(l.holders) }()
	for _, r := range rows {
		if id, ok := l.ids[r.api()]; ok && id != r.apiID {
			l.several[r.api()] = true
		}
		l.ids[r.api()] = r.apiID
	}

	shared := make(map[[32]byte]*x509.Certificate) // one certificate is often registered for many APIs
	twice := map[*row]bool{}
	for _, r := range rows {
		if r.known == nil && r.fault == nil {
			r.known, r.fault = r.read(shared)
			r.certificate = nil
		}
		if r.fault != nil || l.several[r.api()] {
			continue
		}
		if first := l.holders[r.known.proof()]; first != nil {
			twice[first], twice[r] = true, true
		} else {
			l.holders[r.known.proof()] = r
		}
	}
	clients = make([]Client, 0, len(rows))
	for _, r := range rows {
		err := r.fault
		switch {
		case err != nil:
		case l.several[r.api()]:
			err = errSeveralAPIs
		case twice[r]:
			err = errTwice
		}
		if err != nil {
			problems = append(problems, Problem{r.api(), r.alias, KeyType(r.keyType), err})
			continue
		}
		clients = append(clients, *r.known)
	}
	return clients, problems
}

var errTwice = errors.New("its certificate is registered for that API more than once")

// read is client with certificates that were parsed before.
func (r *row) read(shared map[[32]byte]*x509.Certificate) (*Client, error) {
	cert, err := parseShared(shared, r.certificate)
	if err != nil {
		return nil, err
	}
	client, err := r.with(cert)
	if err != nil {
		return nil, err
	}
	return &client, nil
}

func parseShared(shared map[[32]byte]*x509.Certificate, data []byte) (*x509.Certificate, error) {
	key := sha256.Sum256(data)
	if cert := shared[key]; cert != nil {
		return cert, nil
	}
	cert, err := parseStored(data)
	if err == nil {
		shared[key] = cert
	}
	return cert, err
}
