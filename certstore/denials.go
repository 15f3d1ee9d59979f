package certstore

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"sallyport/internal/printable"
)

// A Denial is an entry of the deny list: the certificates that it names are not admitted, whatever vouches for them. It
// names them in exactly one of three ways. The list belongs to no tenant. WSO2's database has none.
type Denial struct {
	Fingerprint [sha256.Size]byte // SHA-256 of the certificate's DER; zero: not by that
	Issuer      []byte            // the issuer's name as DER; nil: not by that,
	Serial      []byte            // and the certificate's serial number, big-endian without leading zeros: nil is 0
	Key         [sha256.Size]byte // SHA-256 of the SubjectPublicKeyInfo; zero: not by that
	Comment     string            // at most 255 characters
	Since       time.Time         // whole seconds are kept
}

const (
	// MaxDenials is how many entries the deny list has at most.
	MaxDenials = 100_000

	maxSerial  = 64       // bytes
	maxIssuer  = 16 << 10 // bytes
	maxComment = 255      // characters
)

var (
	// ErrNotDenied reports that the deny list has no such entry.
	ErrNotDenied = errors.New("the deny list has no such entry")
	// ErrNoDenials reports that a database can have no deny list, since WSO2 owns it. It matches ErrReadOnly.
	ErrNoDenials = ownedError("the store is the database of WSO2, which is only read and has no deny list: give the gateway a store " +
		"of its own (sallyport store copy makes it from this one), or let the CA's revocation list name the certificate")
)

// DenyCertificate, DenySerial and DenyKey name a certificate in the three ways.
func DenyCertificate(cert *x509.Certificate) Denial { return Denial{Fingerprint: Fingerprint(cert)} }

// DenySerial names a certificate by its issuer and serial number: every certificate that has both.
func DenySerial(cert *x509.Certificate) Denial {
	return Denial{Issuer: cert.RawIssuer, Serial: cert.SerialNumber.Bytes()}
}

// DenyKey names a certificate by its key: every certificate that has it.
func DenyKey(cert *x509.Certificate) Denial {
	return Denial{Key: sha256.Sum256(cert.RawSubjectPublicKeyInfo)}
}

// The kinds of denials, as the column KIND has them.
const (
	byFingerprint = "fingerprint"
	bySerial      = "serial"
	byKey         = "spki"
)

// Kind is the word for how the denial names certificates: fingerprint, serial or spki.
func (d *Denial) Kind() string {
	switch {
	case d.Issuer != nil:
		return bySerial
	case d.Key != [sha256.Size]byte{}:
		return byKey
	}
	return byFingerprint
}

// key is the primary key of the denial's row.
func (d *Denial) key() denialKey {
	switch kind := d.Kind(); kind {
	case bySerial:
		digest := sha256.Sum256(d.Issuer)
		return denialKey{kind, hex.EncodeToString(digest[:]), hex.EncodeToString(d.Serial)}
	case byKey:
		return denialKey{kind, hex.EncodeToString(d.Key[:]), ""}
	default:
		return denialKey{kind, hex.EncodeToString(d.Fingerprint[:]), ""}
	}
}

type denialKey struct{ kind, digest, serial string }

func (k denialKey) String() string {
	text := k.kind + " " + k.digest
	if k.serial != "" {
		text += " " + k.serial
	}
	if len(text) > 256 {
		text = text[:256] + "…" // SQLite holds no column to its width
	}
	return `"` + printable.Text(text) + `"`
}

// ID is a short name of the denial, the same in every store: 16 hex digits.
func (d *Denial) ID() string {
	k := d.key()
	sum := sha256.Sum256([]byte(k.kind + " " + k.digest + " " + k.serial))
	return hex.EncodeToString(sum[:8])
}

// By says how the denial names certificates, for logs and people.
func (d *Denial) By() string {
	switch d.Kind() {
	case bySerial:
		return "serial " + cmp.Or(hex.EncodeToString(d.Serial), "00") + " of " + printable.Quote(NameText(d.Issuer))
	case byKey:
		return "SPKI " + hex.EncodeToString(d.Key[:])
	}
	return "fingerprint " + hex.EncodeToString(d.Fingerprint[:])
}

// NameText is a name in DER as RFC 4514 writes it.
func NameText(der []byte) string {
	var name pkix.RDNSequence
	if _, err := asn1.Unmarshal(der, &name); err != nil {
		return hex.EncodeToString(der)
	}
	return name.String()
}

// check returns what is wrong with the denial, or nil.
func (d *Denial) check() error {
	ways := 0
	for _, given := range []bool{d.Fingerprint != [sha256.Size]byte{}, d.Issuer != nil, d.Key != [sha256.Size]byte{}} {
		if given {
			ways++
		}
	}
	if ways != 1 {
		return invalid("a denial names certificates by one of fingerprint, serial number with issuer, and SPKI")
	}
	if d.Issuer != nil {
		if err := checkName(d.Issuer); err != nil {
			return err
		}
	}
	switch {
	case len(d.Serial) > 0 && d.Issuer == nil:
		return invalid("a serial number is one of an issuer")
	case len(d.Serial) > maxSerial:
		return invalid("a serial number has more than %d bytes", maxSerial)
	case len(d.Serial) > 0 && d.Serial[0] == 0:
		return invalid("a serial number begins with a zero")
	case d.Comment == "":
		return nil
	}
	return checkText("the comment", d.Comment, maxComment)
}

// checkName returns what is wrong with the name of an issuer.
func checkName(der []byte) error {
	if len(der) > maxIssuer {
		return invalid("the issuer's name has more than %d bytes", maxIssuer)
	}
	var name pkix.RDNSequence
	if rest, err := asn1.Unmarshal(der, &name); err != nil || len(rest) > 0 {
		return invalid("the issuer's name is not one in DER")
	}
	return nil
}

// AddDenial puts a denial on the list; the zero Since means now. It is false, and the list as it was, if the list has one
// that names the same. Version and Listen tell of it as of registrations. It is durable when the error is nil; the errors
// match ErrInvalid or ErrReadOnly, or come from the database.
func (s *Store) AddDenial(ctx context.Context, d Denial) (added bool, err error) {
	if d.Since.IsZero() {
		d.Since = s.opts.Now()
	}
	if err = d.check(); err == nil {
		err = s.writeDenials(ctx, func(ctx context.Context, tx querier) (err error) {
			n := 0
			n, err = addDenials(ctx, tx, []Denial{d})
			added = n > 0
			return err
		})
	}
	if err != nil {
		return false, fmt.Errorf("add to the deny list: %w", err)
	}
	return added, nil
}

// writeDenials is write. A database of WSO2's has no deny list.
func (s *Store) writeDenials(ctx context.Context, f func(context.Context, querier) error) error {
	err := s.write(ctx, f)
	if errors.Is(err, errOwned) {
		return ErrNoDenials
	}
	return err
}

// addDenials inserts what is not there.
func addDenials(ctx context.Context, tx querier, list []Denial) (added int, err error) {
	if len(list) == 0 {
		return 0, nil
	}
	counts, err := columns[int](ctx, tx, `SELECT COUNT(*) FROM SALLYPORT_DENIAL`)
	if err != nil {
		return 0, err
	}
	for i := range list {
		d, k := &list[i], list[i].key()
		there, err := columns[string](ctx, tx, `SELECT KIND FROM SALLYPORT_DENIAL`+whichDenial, k.kind, k.digest, k.serial)
		switch {
		case err != nil:
			return 0, err
		case len(there) > 0:
			continue
		case counts[0]+added >= MaxDenials:
			return 0, fmt.Errorf("the deny list is full, with %d entries: remove those whose certificates have expired", MaxDenials)
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO SALLYPORT_DENIAL (KIND, DIGEST, SERIAL_NUMBER, ISSUER, REMARK, SINCE)
			VALUES (?, ?, ?, ?, ?, ?)`, k.kind, k.digest, k.serial, d.Issuer, d.Comment, d.Since.Unix())
		if err != nil {
			return 0, err
		}
		added++
	}
	if added > 0 {
		err = needVersion(ctx, tx, denialVersion) // a program that doesn't know the list would admit whom it names
	}
	return added, err
}

// whichDenial selects the row with the given key.
const whichDenial = ` WHERE KIND = ? AND DIGEST = ? AND SERIAL_NUMBER = ?`

// RemoveDenial takes the denial that names the same off the list. The errors match ErrNotDenied, ErrInvalid or
// ErrReadOnly, or come from the database.
func (s *Store) RemoveDenial(ctx context.Context, d Denial) error {
	err := d.check()
	if err == nil {
		err = s.writeDenials(ctx, func(ctx context.Context, tx querier) error {
			k := d.key()
			result, err := tx.ExecContext(ctx, `DELETE FROM SALLYPORT_DENIAL`+whichDenial, k.kind, k.digest, k.serial)
			if err != nil {
				return err
			}
			n, err := result.RowsAffected()
			if err == nil && n == 0 {
				return ErrNotDenied
			}
			return err
		})
	}
	if err != nil {
		return fmt.Errorf("remove from the deny list: %w", err)
	}
	return nil
}

// Denials returns the deny list, the oldest entries first. Rows that can't be read are in unreadable, which names them:
// what they deny is not known, so that whoever goes by the list must not take them for nothing. A list of more than
// MaxDenials is an error. WSO2's database, and one that only older programs have opened, has none.
func (s *Store) Denials(ctx context.Context) (list []Denial, unreadable []error, err error) {
	err = s.use(ctx, func(ctx context.Context, c *connection) error {
		if c.wso2 != nil {
			return nil
		}
		q := session{s.url.dialect, c.db}
		versions, err := columns[int](ctx, q, `SELECT VERSION FROM SALLYPORT_SCHEMA`)
		if err != nil || len(versions) == 0 || slices.Max(versions) < denialVersion {
			return err
		}
		list, unreadable, err = readDenials(ctx, q)
		return err
	})
	if err != nil {
		return nil, nil, fmt.Errorf("read the deny list: %w", err)
	}
	return list, unreadable, nil
}

// denialVersion is the version of the tables as of which there is a deny list.
const denialVersion = 7

// A denialRow is a row of SALLYPORT_DENIAL, not yet validated.
type denialRow struct {
	denialKey
	issuer        []byte
	remark, since string
}

func readDenials(ctx context.Context, q querier) (list []Denial, unreadable []error, err error) {
	rows, err := collect(ctx, q, func(r *denialRow) []any {
		return []any{&r.kind, &r.digest, &r.serial, &r.issuer, &r.remark, &r.since}
	}, `SELECT KIND, DIGEST, SERIAL_NUMBER, ISSUER, REMARK, SINCE FROM SALLYPORT_DENIAL LIMIT `+strconv.Itoa(MaxDenials+1))
	if err != nil {
		return nil, nil, err
	}
	if len(rows) > MaxDenials {
		return nil, nil, fmt.Errorf("its table SALLYPORT_DENIAL has more than %d rows: another program wrote them: remove those that aren't needed", MaxDenials)
	}
	issuers := map[string][]byte{} // valid ones, each once
	for i := range rows {
		d, err := rows[i].denial(issuers)
		if err != nil {
			unreadable = append(unreadable, fmt.Errorf("row %s of the deny list (SALLYPORT_DENIAL) can't be read: %w: "+
				"remove the row, and add what it denies by sallyport cert deny add", rows[i].denialKey, err))
			continue
		}
		list = append(list, d)
	}
	slices.SortFunc(list, func(a, b Denial) int {
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Kind(), b.Kind()), bytes.Compare(a.Fingerprint[:], b.Fingerprint[:]),
			bytes.Compare(a.Key[:], b.Key[:]), bytes.Compare(a.Issuer, b.Issuer), bytes.Compare(a.Serial, b.Serial))
	})
	return list, unreadable, nil
}

// denial returns the row as a Denial, or why it is none. It keeps to what key writes: anything else is not known to deny
// what it seems to.
func (r *denialRow) denial(issuers map[string][]byte) (Denial, error) {
	var d Denial
	digest, err := hex.DecodeString(r.digest)
	if err != nil || len(digest) != sha256.Size || strings.ToLower(r.digest) != r.digest {
		return d, errors.New("DIGEST is not 64 hex digits in lower case")
	}
	since, err := strconv.ParseInt(r.since, 10, 64)
	if err != nil {
		return d, errors.New("SINCE is not a number")
	}
	d.Since, d.Comment = time.Unix(since, 0).UTC(), r.remark
	switch r.kind {
	case byFingerprint:
		d.Fingerprint = [sha256.Size]byte(digest)
	case byKey:
		d.Key = [sha256.Size]byte(digest)
	case bySerial:
		if d.Serial, err = hex.DecodeString(r.serial); err != nil {
			return d, errors.New("SERIAL_NUMBER is not in hex")
		}
		if d.Issuer = issuers[string(r.issuer)]; d.Issuer == nil {
			if err := checkName(r.issuer); err != nil {
				return d, err
			}
			d.Issuer = r.issuer
			issuers[string(r.issuer)] = r.issuer
		}
	default:
		return d, errors.New("KIND is none that this program knows")
	}
	if err := d.check(); err != nil {
		return d, err
	}
	if d.key() != r.denialKey {
		return d, errors.New("its columns contradict each other")
	}
	return d, nil
}

// DenialsWith returns list and, after it, those of others that name something else: what two lists deny together.
func DenialsWith(list, others []Denial) []Denial {
	known := make(map[denialKey]bool, len(list))
	for i := range list {
		known[list[i].key()] = true
	}
	list = slices.Clip(list)
	for i := range others {
		if !known[others[i].key()] {
			list = append(list, others[i])
		}
	}
	return list
}
