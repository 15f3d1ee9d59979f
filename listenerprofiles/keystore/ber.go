package keystore

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

// errDamaged is the error for what doesn't fit the format.
var errDamaged = unusable("PKCS12: damaged, cut short, or something else in DER, put it back whole")

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
		return nil, nil, unusable("PKCS12: values nested deeper than %d", maxNesting)
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
			break
		}
	}
	if err == nil && e.tag == tagOctetString|0x20 {
		e.tag = tagOctetString
		content, err = joinOctets(content)
	}
	switch {
	case err != nil && e.indefinite:
		return nil, nil, err
	case err != nil: // it matters only to who looks into it
		return appendValue(out, e.tag, e.body), rest, nil
	}
	if e.indefinite {
		rest = inside[2:]
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
	if len(in) < 2 || in[0]&0x1f == 0x1f {
		return v, nil, errDamaged
	}
	v.tag = in[0]
	n, at := int(in[1]), 2
	switch {
	case n == 0x80:
		if v.tag&0x20 == 0 {
			return v, nil, errDamaged
		}
		v.indefinite = true
		return v, in[2:], nil
	case n > 0x80:
		at += n & 0x7f
		if n > 0x84 || len(in) < at {
			return v, nil, errDamaged
		}
		n = 0
		for _, b := range in[2:at] {
			n = n<<8 | int(b)
		}
	}
	if n < 0 || n > len(in)-at {
		return v, nil, errDamaged
	}
	v.body, v.full = in[at:at+n:at+n], in[:at+n:at+n]
	return v, in[at+n:], nil
}

// A cursor walks over values of DER.
type cursor []byte

func (c *cursor) next() (value, error) {
	v, rest, err := cutValue(*c)
	if err == nil && v.indefinite {
		err = errDamaged
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
		err = unusable("PKCS12: a value of type %#x where %#x has to be", v.tag, tag)
	}
	return v, err
}

// open returns a cursor within the next value, which has to be of this type.
func (c *cursor) open(tag byte) (cursor, error) {
	v, err := c.want(tag)
	return cursor(v.body), err
}
