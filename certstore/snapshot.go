package certstore

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"sallyport/policy/certrule"
)

// A Snapshot is the registrations and the deny list that a Store had at a time, for a start while its database is away.
// Written, it is lines of text: SnapshotHead, what it is of, a line for each registration and each denial, and a digest of
// all before it. Programs that know of no denials refuse one that has some.
type Snapshot struct {
	Store   string    // the URL, as URL.String has it
	Read    time.Time // when the Store was last seen to have these registrations; whole milliseconds are kept
	Clients []Client
	Denials []Denial
}

// SnapshotHead begins each snapshot. Its number is the format's.
const SnapshotHead = "sallyport-registrations 1\n"

const (
	maxSnapshot     = 1 << 30   // bytes, of all
	maxSnapshotLine = 256 << 10 // bytes, more than a registration's columns hold
	digestWord      = "sha256 "
)

// snapshotOf and snapshotClient are the lines of a snapshot.
type snapshotOf struct {
	Store string    `json:"store"`
	Read  time.Time `json:"read"`
}

type snapshotClient struct {
	API         string   `json:"api"`
	Version     string   `json:"version"`
	Alias       string   `json:"alias"`
	KeyType     KeyType  `json:"keyType"`
	Tier        string   `json:"tier"`
	Scopes      []string `json:"scopes,omitempty"`
	Certificate []byte   `json:"certificate"`
	Match       string   `json:"match,omitempty"` // certrule.Matcher.Text
}

type snapshotDenial struct {
	Deny    string `json:"deny"` // Denial.Kind
	Digest  string `json:"digest,omitempty"`
	Issuer  []byte `json:"issuer,omitempty"`
	Serial  string `json:"serial,omitempty"`
	Comment string `json:"comment,omitempty"`
	Since   int64  `json:"since"`
}

// denialWord begins the line of a denial, and of nothing else.
const denialWord = `{"deny":`

// Write writes the snapshot.
func (s Snapshot) Write(to io.Writer) error {
	digest := sha256.New()
	out := bufio.NewWriterSize(to, 64<<10)
	left := int64(maxSnapshot)
	line := func(data []byte) error {
		if left -= int64(len(data) + 1); left < 0 || len(data) > maxSnapshotLine {
			return fmt.Errorf("a snapshot has %d bytes at most, and each line of it %d", maxSnapshot, maxSnapshotLine)
		}
		data = append(data, '\n')
		digest.Write(data)
		_, err := out.Write(data)
		return err
	}
	write := func(v any) error {
		data, err := json.Marshal(v)
		if err != nil {
			return err
		}
		return line(data)
	}
	err := errors.Join(line([]byte(SnapshotHead[:len(SnapshotHead)-1])), write(snapshotOf{s.Store, s.Read.UTC().Truncate(time.Millisecond)}))
	for i := 0; err == nil && i < len(s.Clients); i++ {
		c := &s.Clients[i]
		err = write(snapshotClient{c.API.Name, c.API.Version, c.Alias, c.KeyType, c.Tier, c.Scopes, c.Certificate.Raw, c.Matcher().Text()})
	}
	for i := 0; err == nil && i < len(s.Denials); i++ {
		err = write(snapshotDenialOf(&s.Denials[i]))
	}
	if err != nil {
		return err
	}
	if err := line([]byte(digestWord + hex.EncodeToString(digest.Sum(nil)))); err != nil {
		return err
	}
	return out.Flush()
}

// ParseSnapshot reads a snapshot to its end. Whatever is not as Write has written it is an error: none of it counts then.
func ParseSnapshot(from io.Reader) (Snapshot, error) {
	s, err := parseSnapshot(from)
	if err != nil {
		return Snapshot{}, err
	}
	return s, nil
}

func parseSnapshot(from io.Reader) (s Snapshot, err error) {
	lines := bufio.NewReaderSize(io.LimitReader(from, maxSnapshot), maxSnapshotLine+1)
	digest := sha256.New()
	shared, issuers := map[[sha256.Size]byte]*x509.Certificate{}, map[string][]byte{}
	for n := 1; ; n++ {
		line, err := lines.ReadSlice('\n')
		if errors.Is(err, io.EOF) {
			return s, errors.New("its end is missing")
		}
		if err != nil {
			return s, fmt.Errorf("line %d: %w", n, err)
		}
		if said, ok := bytes.CutPrefix(line, []byte(digestWord)); ok {
			return s, endOfSnapshot(lines, said, digest.Sum(nil))
		}
		digest.Write(line)
		switch n {
		case 1:
			if string(line) != SnapshotHead {
				return s, errors.New("it is no snapshot of registrations, or a newer program's")
			}
		case 2:
			var of snapshotOf
			err = parseLine(line, &of)
			s.Store, s.Read = of.Store, of.Read
		default:
			if bytes.HasPrefix(line, []byte(denialWord)) {
				var d Denial
				d, err = parseSnapshotDenial(line, issuers)
				s.Denials = append(s.Denials, d)
				break
			}
			var c Client
			c, err = parseSnapshotClient(line, shared)
			s.Clients = append(s.Clients, c)
		}
		if err != nil {
			return s, fmt.Errorf("line %d: %w", n, err)
		}
	}
}

// endOfSnapshot checks the digest, and that nothing follows it.
func endOfSnapshot(lines *bufio.Reader, said, digest []byte) error {
	if string(said) != hex.EncodeToString(digest)+"\n" {
		return errors.New("it was changed or damaged: its digest is another's")
	}
	if _, err := lines.ReadByte(); !errors.Is(err, io.EOF) {
		return errors.Join(errors.New("something follows its end"), err)
	}
	return nil
}

func parseSnapshotClient(line []byte, shared map[[sha256.Size]byte]*x509.Certificate) (Client, error) {
	var c snapshotClient
	if err := parseLine(line, &c); err != nil {
		return Client{}, err
	}
	cert, err := parseShared(shared, c.Certificate)
	if err != nil {
		return Client{}, err
	}
	client := Client{
		API: API{c.API, c.Version}, Alias: c.Alias, KeyType: c.KeyType, Tier: c.Tier, Scopes: c.Scopes, Certificate: cert, Source: InStore,
	}
	if c.Match != "" {
		if client.Match, err = certrule.Parse(c.Match); err != nil {
			return Client{}, err
		}
	}
	return client.complete()
}

func snapshotDenialOf(d *Denial) snapshotDenial {
	k := d.key()
	return snapshotDenial{Deny: k.kind, Digest: k.digest, Issuer: d.Issuer, Serial: k.serial, Comment: d.Comment, Since: d.Since.Unix()}
}

func parseSnapshotDenial(line []byte, issuers map[string][]byte) (Denial, error) {
	var d snapshotDenial
	if err := parseLine(line, &d); err != nil {
		return Denial{}, err
	}
	r := denialRow{denialKey{d.Deny, d.Digest, d.Serial}, d.Issuer, d.Comment, strconv.FormatInt(d.Since, 10)}
	return r.denial(issuers)
}

func parseLine(line []byte, to any) error {
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(to); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one value")
	}
	return nil
}
