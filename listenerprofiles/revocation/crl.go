package revocation

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"hash/maphash"
	"io"
	"math/big"
	"slices"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"sallyport/internal/printable"
)

// Bounds of what is read.
const (
	maxList    = 64 << 20 // bytes of a CRL in DER
	maxFile    = 80 << 20 // bytes of a file or body: a list in PEM takes a third more
	maxLists   = 1_000    // CRLs of a file
	maxEd25519 = 4 << 20  // bytes of a CRL that is signed by Ed25519, which is kept: its signature covers no digest
	maxPoints  = 64       // addresses that a list names
	pieceBytes = 64 << 10 // of long work between two rests
	pieceItems = 1 << 10  // entries or hashes, likewise
)

// seed keys the hashes of serial numbers and names, so that nobody outside can choose two that collide.
var seed = maphash.MakeSeed()

// A list is what is kept of a CRL: who signed what, and the revoked serial numbers as sorted 64-bit keyed hashes, eight
// bytes an entry where x509.RevocationList takes several hundred. A certificate that is not revoked is taken for a
// revoked one with a probability of entries/2^64, which is 7e-14 for 1.3 million; a revoked one is never overlooked.
type list struct {
	issuer    []byte // RawIssuer
	name      uint64 // hash of issuer
	authority []byte // key identifier; nil: none

	algorithm x509.SignatureAlgorithm
	signed    []byte // digest of the TBSCertList by the algorithm's hash; for Ed25519 the TBSCertList itself
	signature []byte

	thisUpdate time.Time
	nextUpdate time.Time // zero: none is named
	number     *big.Int  // nil: none
	base       *big.Int  // BaseCRLNumber of a delta CRL; nil: a complete list
	scope      []byte    // issuingDistributionPoint as it stands; nil: all certificates of the issuer
	points     []string  // the addresses in scope: the list vouches only for certificates that name one; none: for all
	onlyUsers  bool
	onlyCAs    bool
	freshest   []string // where delta CRLs are

	revoked []uint64
	removed []uint64 // by a delta: removeFromCRL
}

// parseLists reads CRLs: one in DER, or one or more in PEM. It decodes PEM in place, so data is not usable afterwards.
func parseLists(data []byte) ([]*list, error) {
	if len(data) == 0 {
		return nil, errors.New("it is empty")
	}
	if data[0] == 0x30 {
		l, err := parseList(data)
		if err != nil {
			return nil, err
		}
		return []*list{l}, nil
	}
	var lists []*list
	for {
		block, rest, err := nextPEM(data)
		if err != nil {
			return nil, fmt.Errorf("CRL %d: %w", len(lists)+1, err)
		}
		if block == nil {
			break
		}
		if len(lists) == maxLists {
			return nil, fmt.Errorf("it holds more than %d CRLs", maxLists)
		}
		l, err := parseList(block)
		if err != nil {
			return nil, fmt.Errorf("CRL %d: %w", len(lists)+1, err)
		}
		lists, data = append(lists, l), rest
	}
	if len(lists) == 0 {
		return nil, errors.New("it holds no CRL, neither in DER nor in PEM")
	}
	return lists, nil
}

var (
	pemBegin = []byte("-----BEGIN ")
	pemDash  = []byte("-----")
)

const pemLabel = "X509 CRL"

// nextPEM decodes the first PEM block of data in place, and returns nil if there is none. pem.Decode would take twice
// the memory (TestAllocLargeList).
func nextPEM(data []byte) (block, rest []byte, err error) {
	_, after, found := bytes.Cut(data, pemBegin)
	if !found {
		return nil, nil, nil
	}
	label, body, found := bytes.Cut(after, pemDash)
	if !found || len(label) > 64 {
		return nil, nil, errors.New("malformed PEM")
	}
	if string(label) != pemLabel {
		return nil, nil, fmt.Errorf("a PEM block is %s, not %s", printable.Quote(string(label)), pemLabel)
	}
	body, rest, found = bytes.Cut(body, []byte("-----END "+pemLabel+"-----"))
	if !found {
		return nil, nil, errors.New("the PEM block has no end")
	}
	// What is written is always behind what was read: the decoder reads four bytes for three.
	decoder := base64.NewDecoder(base64.StdEncoding, bytes.NewReader(body))
	n, work := 0, newStint()
	for n < len(body) {
		m, err := decoder.Read(body[n:min(len(body), n+pieceBytes)])
		n += m
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, nil, fmt.Errorf("malformed PEM: %w", err)
		}
		work.rest()
	}
	return body[:n], rest, nil
}

var errMalformed = errors.New("malformed CRL")

// parseList reads a CRL in DER (RFC 5280 section 5), and refuses whatever could make it say something else than a list
// of all that its issuer has revoked within its scope. It keeps nothing of der, except under Ed25519.
//
// Everything but the entries is read by x509.ParseRevocationList, from a copy of the list that has none.
func parseList(der []byte) (*list, error) {
	if len(der) > maxList {
		return nil, fmt.Errorf("a CRL larger than %d bytes", maxList)
	}
	outer, list := cryptobyte.String(der), cryptobyte.String(nil)
	if !outer.ReadASN1(&list, cbasn1.SEQUENCE) {
		return nil, errMalformed
	}
	if !outer.Empty() {
		return nil, errors.New("there is more after the CRL")
	}
	var tbs cryptobyte.String
	if !list.ReadASN1Element(&tbs, cbasn1.SEQUENCE) {
		return nil, errMalformed
	}
	tbsDER := []byte(tbs)
	frame, entries, err := cut(tbs, list)
	if err != nil {
		return nil, err
	}
	head, err := x509.ParseRevocationList(frame)
	if err != nil {
		return nil, err
	}
	l, err := fromHead(head)
	if err != nil {
		return nil, err
	}
	if l.revoked, l.removed, err = parseEntries(entries, l.base != nil); err != nil {
		return nil, err
	}
	l.signed, err = digest(l.algorithm, tbsDER)
	return l, err
}

// cut returns the CRL without its entries, and the entries. A version 1 list, which x509 does not read, becomes one of
// version 2 without extensions; signature is what follows the TBSCertList.
func cut(tbs, signature cryptobyte.String) (frame []byte, entries cryptobyte.String, err error) {
	if !tbs.ReadASN1(&tbs, cbasn1.SEQUENCE) {
		return nil, nil, errMalformed
	}
	first := !tbs.PeekASN1Tag(cbasn1.INTEGER)
	var version, algorithm, issuer, this, next cryptobyte.String
	if !first && !tbs.ReadASN1Element(&version, cbasn1.INTEGER) ||
		!tbs.ReadASN1Element(&algorithm, cbasn1.SEQUENCE) || !tbs.ReadASN1Element(&issuer, cbasn1.SEQUENCE) ||
		!readTime(&tbs, &this) {
		return nil, nil, errMalformed
	}
	if isTime(tbs) && !readTime(&tbs, &next) {
		return nil, nil, errMalformed
	}
	if tbs.PeekASN1Tag(cbasn1.SEQUENCE) && !tbs.ReadASN1(&entries, cbasn1.SEQUENCE) {
		return nil, nil, errMalformed
	}
	if first && !tbs.Empty() {
		return nil, nil, errors.New("a CRL of version 1 with extensions")
	}
	extensions := tbs
	if !extensions.Empty() {
		var one cryptobyte.String
		rest := extensions
		if !rest.ReadASN1Element(&one, cbasn1.Tag(0).Constructed().ContextSpecific()) || !rest.Empty() {
			return nil, nil, errors.New("there is more in the CRL than a CRL has")
		}
	}
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			if first {
				b.AddASN1Int64(1)
			}
			for _, part := range [][]byte{version, algorithm, issuer, this, next, extensions} {
				b.AddBytes(part)
			}
		})
		b.AddBytes(signature)
	})
	frame, err = b.Bytes()
	return frame, entries, err
}

func isTime(s cryptobyte.String) bool {
	return s.PeekASN1Tag(cbasn1.UTCTime) || s.PeekASN1Tag(cbasn1.GeneralizedTime)
}

// readTime reads the element of a time, whose value nobody needs.
func readTime(s, out *cryptobyte.String) bool {
	var tag cbasn1.Tag
	return isTime(*s) && s.ReadAnyASN1Element(out, &tag)
}

// Extensions of lists and their entries.
var (
	oidNumber         = asn1.ObjectIdentifier{2, 5, 29, 20}
	oidDelta          = asn1.ObjectIdentifier{2, 5, 29, 27}
	oidScope          = asn1.ObjectIdentifier{2, 5, 29, 28}
	oidAuthority      = asn1.ObjectIdentifier{2, 5, 29, 35}
	oidFreshest       = asn1.ObjectIdentifier{2, 5, 29, 46}
	oidReason         = asn1.ObjectIdentifier{2, 5, 29, 21}
	oidInvalidityDate = asn1.ObjectIdentifier{2, 5, 29, 24}
)

// fromHead is a list without entries and digest.
func fromHead(head *x509.RevocationList) (*list, error) {
	l := &list{
		issuer:     bytes.Clone(head.RawIssuer),
		name:       maphash.Bytes(seed, head.RawIssuer),
		authority:  bytes.Clone(head.AuthorityKeyId),
		algorithm:  head.SignatureAlgorithm,
		signature:  bytes.Clone(head.Signature),
		thisUpdate: head.ThisUpdate,
		nextUpdate: head.NextUpdate,
		number:     head.Number,
	}
	if !l.nextUpdate.IsZero() && l.nextUpdate.Before(l.thisUpdate) {
		return nil, errors.New("nextUpdate is before thisUpdate")
	}
	seen := map[string]bool{}
	for _, e := range head.Extensions {
		id := e.Id.String()
		if seen[id] {
			return nil, fmt.Errorf("extension %s is there twice", id)
		}
		seen[id] = true
		var err error
		switch {
		case e.Id.Equal(oidDelta):
			l.base = new(big.Int)
			if value := cryptobyte.String(e.Value); !value.ReadASN1Integer(l.base) || !value.Empty() || l.base.Sign() < 0 {
				err = errors.New("malformed deltaCRLIndicator")
			}
		case e.Id.Equal(oidScope):
			l.scope = bytes.Clone(e.Value)
			err = l.parseScope(e.Value)
		case e.Id.Equal(oidFreshest):
			l.freshest, err = parsePoints(e.Value)
		case e.Id.Equal(oidNumber), e.Id.Equal(oidAuthority):
		case e.Critical:
			err = fmt.Errorf("critical extension %s is not known", id)
		}
		if err != nil {
			return nil, err
		}
	}
	if l.base != nil && (l.number == nil || l.number.Cmp(l.base) < 0) {
		return nil, errors.New("a delta CRL without a number, or with one below its base's")
	}
	return l, nil
}

// parseScope reads an issuingDistributionPoint (RFC 5280 section 5.2.5).
func (l *list) parseScope(value cryptobyte.String) error {
	errScope := errors.New("malformed issuingDistributionPoint")
	var scope, point cryptobyte.String
	var named bool
	tag := func(n uint8) cbasn1.Tag { return cbasn1.Tag(n).ContextSpecific() }
	if !value.ReadASN1(&scope, cbasn1.SEQUENCE) || !value.Empty() ||
		!scope.ReadOptionalASN1(&point, &named, tag(0).Constructed()) {
		return errScope
	}
	var flags [6]bool
	for n := uint8(1); n <= 5; n++ {
		var flag cryptobyte.String
		var present bool
		if !scope.ReadOptionalASN1(&flag, &present, tag(n)) {
			return errScope
		}
		if present && n != 3 && (len(flag) != 1 || flag[0] != 0 && flag[0] != 0xff) {
			return errScope
		}
		flags[n] = present && (n == 3 || flag[0] == 0xff)
	}
	switch {
	case !scope.Empty():
		return errScope
	case flags[3]:
		return errors.New("the CRL is for some reasons only (onlySomeReasons), which is not supported")
	case flags[4]:
		return errors.New("the CRL is an indirect one (indirectCRL), which is not supported")
	case flags[5]:
		return errors.New("the CRL is of attribute certificates (onlyContainsAttributeCerts)")
	case flags[1] && flags[2]:
		return errors.New("the CRL is for user certificates only and for CA certificates only")
	}
	l.onlyUsers, l.onlyCAs = flags[1], flags[2]
	if !named {
		return nil
	}
	points, err := parsePointName(point)
	if err == nil && len(points) == 0 {
		err = errors.New("the CRL's distribution point has no address")
	}
	l.points = points
	return err
}

// parsePoints returns the addresses of a cRLDistributionPoints or freshestCRL.
func parsePoints(value cryptobyte.String) (points []string, err error) {
	errPoints := errors.New("malformed list of distribution points")
	var all cryptobyte.String
	if !value.ReadASN1(&all, cbasn1.SEQUENCE) || !value.Empty() {
		return nil, errPoints
	}
	for !all.Empty() {
		var one, name cryptobyte.String
		var named bool
		if !all.ReadASN1(&one, cbasn1.SEQUENCE) ||
			!one.ReadOptionalASN1(&name, &named, cbasn1.Tag(0).Constructed().ContextSpecific()) {
			return nil, errPoints
		}
		if !named || !one.Empty() {
			continue // for some reasons only, or of another issuer: nothing that is looked up
		}
		more, err := parsePointName(name)
		if err != nil {
			return nil, err
		}
		if points = append(points, more...); len(points) > maxPoints {
			return nil, fmt.Errorf("more than %d distribution points", maxPoints)
		}
	}
	return points, nil
}

// parsePointName returns the addresses of a DistributionPointName.
func parsePointName(name cryptobyte.String) (points []string, err error) {
	errName := errors.New("malformed name of a distribution point")
	var full cryptobyte.String
	var present bool
	if !name.ReadOptionalASN1(&full, &present, cbasn1.Tag(0).Constructed().ContextSpecific()) {
		return nil, errName
	}
	for !full.Empty() {
		var one cryptobyte.String
		var tag cbasn1.Tag
		if !full.ReadAnyASN1(&one, &tag) {
			return nil, errName
		}
		if tag == cbasn1.Tag(6).ContextSpecific() {
			if points = append(points, string(one)); len(points) > maxPoints {
				return nil, fmt.Errorf("more than %d distribution points", maxPoints)
			}
		}
	}
	return points, nil
}

// parseEntries returns the hashes of the serial numbers in revokedCertificates, sorted; of a delta, apart those that it
// removes. A long list is a stint.
func parseEntries(entries cryptobyte.String, delta bool) (revoked, removed []uint64, err error) {
	count, work := 0, newStint()
	var entry cryptobyte.String
	for rest := entries; !rest.Empty(); count++ {
		if !rest.ReadASN1Element(&entry, cbasn1.SEQUENCE) {
			return nil, nil, errMalformed
		}
		if count%pieceItems == 0 {
			work.rest()
		}
	}
	revoked = make([]uint64, 0, count)
	for n := 0; !entries.Empty(); n++ {
		if n%pieceItems == 0 {
			work.rest()
		}
		var serial, extensions cryptobyte.String
		var present bool
		if !entries.ReadASN1(&entry, cbasn1.SEQUENCE) || !entry.ReadASN1(&serial, cbasn1.INTEGER) || !isInteger(serial) ||
			!readTime(&entry, &extensions) || !entry.ReadOptionalASN1(&extensions, &present, cbasn1.SEQUENCE) {
			return nil, nil, fmt.Errorf("entry %d: %w", n+1, errMalformed)
		}
		if !entry.Empty() {
			return nil, nil, fmt.Errorf("entry %d: there is more in it than an entry has", n+1)
		}
		gone := false
		if present {
			if gone, err = parseEntryExtensions(extensions); err != nil {
				return nil, nil, fmt.Errorf("entry %d: %w", n+1, err)
			}
		}
		if gone && delta {
			removed = append(removed, maphash.Bytes(seed, serial))
		} else {
			revoked = append(revoked, maphash.Bytes(seed, serial))
		}
	}
	if len(removed) > 0 {
		revoked = slices.Clip(revoked)
	}
	sortHashes(revoked)
	sortHashes(removed)
	return revoked, removed, nil
}

// isInteger reports whether b is the content of an INTEGER in DER.
func isInteger(b []byte) bool {
	return len(b) == 1 || len(b) > 1 && !(b[0] == 0 && b[1] < 0x80) && !(b[0] == 0xff && b[1] >= 0x80)
}

// parseEntryExtensions reports whether an entry takes a certificate off the list.
func parseEntryExtensions(extensions cryptobyte.String) (removed bool, err error) {
	for !extensions.Empty() {
		var one, id, value cryptobyte.String
		var critical bool
		if !extensions.ReadASN1(&one, cbasn1.SEQUENCE) || !one.ReadASN1(&id, cbasn1.OBJECT_IDENTIFIER) ||
			one.PeekASN1Tag(cbasn1.BOOLEAN) && !one.ReadASN1Boolean(&critical) ||
			!one.ReadASN1(&value, cbasn1.OCTET_STRING) {
			return false, errMalformed
		}
		switch {
		case bytes.Equal(id, derReason):
			var reason int
			if !value.ReadASN1Enum(&reason) {
				return false, errors.New("malformed reasonCode")
			}
			removed = removed || reason == removeFromCRL
		case critical && !bytes.Equal(id, derInvalidityDate):
			return false, errors.New("a critical extension is not known")
		}
	}
	return removed, nil
}

const removeFromCRL = 8

// The contents of identifiers in DER.
var (
	derReason         = oidContent(oidReason)
	derInvalidityDate = oidContent(oidInvalidityDate)
)

func oidContent(id asn1.ObjectIdentifier) []byte {
	der, err := asn1.Marshal(id)
	if err != nil {
		panic(err)
	}
	return der[2:]
}

// sortHashes sorts in place, as a stint, which slices.Sort would not be. Hashes are spread evenly, so their first byte
// makes 256 parts of like size.
func sortHashes(hashes []uint64) {
	if len(hashes) <= pieceItems {
		slices.Sort(hashes)
		return
	}
	work := newStint()
	var next, end [256]int
	for piece := range slices.Chunk(hashes, pieceItems) {
		for _, h := range piece {
			end[h>>56]++
		}
		work.rest()
	}
	for i, sum := 0, 0; i < 256; i++ {
		next[i] = sum
		sum += end[i]
		end[i] = sum
	}
	start := 0
	for i := range 256 {
		for next[i] < end[i] {
			h := hashes[next[i]]
			for part := h >> 56; part != uint64(i); part = h >> 56 {
				hashes[next[part]], h = h, hashes[next[part]]
				next[part]++
			}
			hashes[next[i]] = h
			if next[i]++; next[i]%pieceItems == 0 {
				work.rest()
			}
		}
	}
	for i := range 256 {
		slices.Sort(hashes[start:end[i]])
		start = end[i]
		work.rest()
	}
}

// hashOf is the hash that an algorithm signs, by those that x509 checks on CRLs.
var hashOf = map[x509.SignatureAlgorithm]crypto.Hash{
	x509.SHA1WithRSA:      crypto.SHA1,
	x509.SHA256WithRSA:    crypto.SHA256,
	x509.SHA384WithRSA:    crypto.SHA384,
	x509.SHA512WithRSA:    crypto.SHA512,
	x509.SHA256WithRSAPSS: crypto.SHA256,
	x509.SHA384WithRSAPSS: crypto.SHA384,
	x509.SHA512WithRSAPSS: crypto.SHA512,
	x509.ECDSAWithSHA1:    crypto.SHA1,
	x509.ECDSAWithSHA256:  crypto.SHA256,
	x509.ECDSAWithSHA384:  crypto.SHA384,
	x509.ECDSAWithSHA512:  crypto.SHA512,
	x509.PureEd25519:      0,
}

// digest returns what the signature of a list is checked with.
func digest(algorithm x509.SignatureAlgorithm, tbs []byte) ([]byte, error) {
	by, known := hashOf[algorithm]
	switch {
	case !known:
		return nil, fmt.Errorf("signature algorithm %v is not supported", algorithm)
	case by == 0 && len(tbs) > maxEd25519:
		return nil, fmt.Errorf("a CRL signed by Ed25519 is larger than %d bytes", maxEd25519)
	case by == 0:
		return bytes.Clone(tbs), nil
	}
	h := by.New()
	inPieces(h, tbs)
	return h.Sum(nil), nil
}

// inPieces hashes data as a stint. Go cannot interrupt the hashing of one piece, which would hold up a garbage
// collection, and with it all calls.
func inPieces(h hash.Hash, data []byte) {
	work := newStint()
	for piece := range slices.Chunk(data, pieceBytes) {
		h.Write(piece)
		work.rest()
	}
}

// contains reports whether sorted hashes have h.
func contains(hashes []uint64, h uint64) bool {
	_, found := slices.BinarySearch(hashes, h)
	return found
}

// appendSerial appends the content of the INTEGER n in DER.
func appendSerial(b []byte, n *big.Int) []byte {
	if n.Sign() < 0 {
		der, err := asn1.Marshal(n)
		if err != nil {
			return b
		}
		var content cryptobyte.String
		s := cryptobyte.String(der)
		s.ReadASN1(&content, cbasn1.INTEGER)
		return append(b, content...)
	}
	size := n.BitLen()/8 + 1 // with the bit of the sign
	b = append(b, make([]byte, size)...)
	n.FillBytes(b[len(b)-size:])
	return b
}
