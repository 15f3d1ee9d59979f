package trust

import (
	"crypto/sha256"
	"crypto/x509"
	"math/big"
	"slices"
	"time"

	"sallyport/internal/printable"
)

// A Denial is an entry of a deny list: the certificates that it names are refused, whatever vouches for them. It names
// them in one of three ways; whoever makes it checks that.
type Denial struct {
	Fingerprint [sha256.Size]byte // SHA-256 of the certificate's DER; zero: not by that
	Issuer      []byte            // the issuer's name as DER, byte for byte, of the certificate with that
	Serial      []byte            // number, big-endian without leading zeros; Issuer nil: not by that
	Key         [sha256.Size]byte // SHA-256 of the SubjectPublicKeyInfo; zero: not by that
	Comment     string
	Since       time.Time
	By          func() string // says how it names certificates, for logs and people; nil: nobody does
}

// DeniedBy is the Fault for a certificate that Find has found, or one of whose issuers it has.
func DeniedBy(d *Denial) *Fault {
	by, comment := "", ""
	if d.By != nil {
		by = ", by " + printable.Text(limitText(d.By()))
	}
	if d.Comment != "" {
		comment = ": " + printable.Quote(limitText(d.Comment))
	}
	return fault(Denied, "the certificate, or one of its chain, is on the deny list%s, since %s%s", by, stamp(d.Since), comment)
}

// Denials are a deny list. They never change; a nil list is empty.
type Denials struct {
	list    []Denial
	prints  map[[sha256.Size]byte]*Denial
	serials map[[sha256.Size]byte]*Denial // by serialMark
	keys    map[[sha256.Size]byte]*Denial
}

// NewDenials makes a deny list. Of several entries that name the same certificates the first counts.
func NewDenials(list []Denial) *Denials {
	d := &Denials{list: slices.Clone(list)}
	put := func(in *map[[sha256.Size]byte]*Denial, mark [sha256.Size]byte, entry *Denial) {
		if mark == [sha256.Size]byte{} {
			return
		}
		if *in == nil {
			*in = map[[sha256.Size]byte]*Denial{}
		}
		if (*in)[mark] == nil {
			(*in)[mark] = entry
		}
	}
	for i := range d.list {
		entry := &d.list[i]
		put(&d.prints, entry.Fingerprint, entry)
		put(&d.keys, entry.Key, entry)
		if entry.Issuer != nil {
			put(&d.serials, serialMark(entry.Issuer, new(big.Int).SetBytes(entry.Serial)), entry)
		}
	}
	return d
}

// Len is how many entries the list has.
func (d *Denials) Len() int {
	if d == nil {
		return 0
	}
	return len(d.list)
}

// Find returns an entry that names a certificate of path, which is the one that is judged and those that vouch for it;
// nil if there is none. It allocates nothing: BenchmarkDenials.
func (d *Denials) Find(path []*x509.Certificate) *Denial {
	if d.Len() == 0 {
		return nil
	}
	for _, cert := range path {
		if cert == nil {
			continue
		}
		if entry := d.FindMarks(MarksOf(cert)); entry != nil {
			return entry
		}
	}
	return nil
}

// Marks are what a deny list knows a certificate by, so that it need not be parsed or hashed for each call.
type Marks struct{ fingerprint, serial, key [sha256.Size]byte }

// MarksOf returns a certificate's marks.
func MarksOf(cert *x509.Certificate) Marks {
	return Marks{sha256.Sum256(cert.Raw), serialMark(cert.RawIssuer, cert.SerialNumber), sha256.Sum256(cert.RawSubjectPublicKeyInfo)}
}

// FindMarks is Find for one certificate.
func (d *Denials) FindMarks(m Marks) *Denial {
	if d.Len() == 0 {
		return nil
	}
	if entry := d.prints[m.fingerprint]; entry != nil {
		return entry
	}
	if entry := d.serials[m.serial]; entry != nil {
		return entry
	}
	return d.keys[m.key]
}

// serialMark is a digest of an issuer's name and a serial number, however many zeros that begins with. A negative number,
// which crypto/x509 does not read, has none.
func serialMark(issuer []byte, serial *big.Int) [sha256.Size]byte {
	const most = 64 // bytes; CAs use 20 at most, RFC 5280 section 4.1.2.2
	if serial == nil || serial.Sign() < 0 {
		return [sha256.Size]byte{}
	}
	if size := (serial.BitLen() + 7) / 8; size <= most {
		var space [sha256.Size + most]byte
		digest := sha256.Sum256(issuer)
		copy(space[:], digest[:])
		serial.FillBytes(space[sha256.Size : sha256.Size+size])
		return sha256.Sum256(space[:sha256.Size+size])
	}
	digest := sha256.Sum256(issuer)
	return sha256.Sum256(append(digest[:], serial.Bytes()...))
}
