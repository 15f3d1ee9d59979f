package keystore

import "fmt"

// maxNesting is how deep values may stand in each other: a PKCS #12 file has eight levels.
const maxNesting = 32

// Identifier octets of the types that a PKCS #12 file is made of.
const (
	tagInteger     = 0x02
	tagOctetString = 0x04
	tagOID         = 0x06
	tagBMPString   = 0x1e
	tagSequence    = 0x30
	tagSet         = 0x31
	tagContext0    = 0xa0 // constructed
)

// toDER returns the first value of ber with definite lengths, each as short as it can be, and octet strings in one
// piece. Bytes after the value are ignored, as Java does.
func toDER(ber []byte) ([]byte, error) {
	der, _, err := appendDER(make([]byte, 0, len(ber)), ber, 0)
	return der, err
}

// appendDER appends the first value of in to out and returns the rest of in, too.
func appendDER(out, in []byte, depth int) (der, rest []byte, err error) {
	e, rest, err := cutValue(in)
	switch {
	case err != nil:
		return nil, nil, err
	case depth > maxNesting:
		return nil, nil, fmt.Errorf("PKCS12: values nested deeper than %d: %w", maxNesting, ErrFormat)
	case e.tag&0x20 == 0:
		return appendValue(out, e.tag, e.body), rest, nil
	}
	var content []byte
	inside := e.body
	if e.indefinite {
		inside = rest
	}
	for !e.indefinite && len(inside) > 0 || e.indefinite && !(len(inside) >= 2 && inside[0] == 0 && inside[1] == 0) {
		if content, inside, err = appendDER(content, inside, depth+1); err != nil {
			return nil, nil, err
		}
	}
	if e.indefinite {
		rest = inside[2:]
	}
	if e.tag == tagOctetString|0x20 {
		if content, err = joinOctets(content); err != nil {
			return nil, nil, err
		}
		e.tag = tagOctetString
	}
	return appendValue(out, e.tag, content), rest, nil
}

// joinOctets returns the contents of octet strings, one after the other.
func joinOctets(der []byte) ([]byte, error) {
	var whole []byte
	for c := cursor(der); len(c) > 0; {
		piece, err := c.want(tagOctetString)
		if err != nil {
			return nil, err
		}
		whole = append(whole, piece.body...)
	}
	return whole, nil
}

func appendValue(out []byte, tag byte, body []byte) []byte {
	out = append(out, tag)
	n := len(body)
	switch {
	case n < 0x80:
		out = append(out, byte(n))
	case n < 1<<8:
		out = append(out, 0x81, byte(n))
	case n < 1<<16:
		out = append(out, 0x82, byte(n>>8), byte(n))
	default: // MaxSize keeps it below 32 bits
		out = append(out, 0x84, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
	}
	return append(out, body...)
}

// A value is one value of BER or DER. Its slices point into the file.
type value struct {
	tag        byte
	body       []byte
	full       []byte // with tag and length
	indefinite bool   // its end is marked, and body and full are empty
}

// cutValue splits the first value off.
func cutValue(in []byte) (v value, rest []byte, err error) {
	short := fmt.Errorf("PKCS12: damaged or cut short: %w", ErrFormat)
	if len(in) < 2 || in[0]&0x1f == 0x1f {
		return v, nil, short
	}
	v.tag = in[0]
	n, at := int(in[1]), 2
	switch {
	case n == 0x80:
		if v.tag&0x20 == 0 {
			return v, nil, short
		}
		v.indefinite = true
		return v, in[2:], nil
	case n > 0x80:
		at += n & 0x7f
		if n > 0x84 || len(in) < at {
			return v, nil, short
		}
		n = 0
		for _, b := range in[2:at] {
			n = n<<8 | int(b)
		}
	}
	if n < 0 || n > len(in)-at {
		return v, nil, short
	}
	v.body, v.full = in[at:at+n:at+n], in[:at+n:at+n]
	return v, in[at+n:], nil
}

// A cursor walks over values of DER.
type cursor []byte

func (c *cursor) next() (value, error) {
	v, rest, err := cutValue(*c)
	if err == nil && v.indefinite {
		err = fmt.Errorf("PKCS12: damaged or cut short: %w", ErrFormat)
	}
	if err != nil {
		return value{}, err
	}
	*c = rest
	return v, nil
}

// want returns the next value, which has to be of this type.
func (c *cursor) want(tag byte) (value, error) {
	v, err := c.next()
	if err == nil && v.tag != tag {
		err = fmt.Errorf("PKCS12: a value of type %#x where %#x has to be: %w", v.tag, tag, ErrFormat)
	}
	return v, err
}

// open returns a cursor within the next value, which has to be of this type.
func (c *cursor) open(tag byte) (cursor, error) {
	v, err := c.want(tag)
	return cursor(v.body), err
}
