package fileset

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"

	"filippo.io/age"
)

// sealedBy begins whatever age has encrypted.
const sealedBy = "age-encryption.org/v1\n"

// SealValue makes what a store may hold of one value: its content, encrypted unless k is the zero Key, after a line that
// vouches for it and its name. Without the Key nobody can make another one, or give it another name; an older one of the
// same name is as good as the newest. It is at most 1 KiB longer than a content of 1 MiB.
func (k Key) SealValue(name string, content []byte) ([]byte, error) {
	if len(k.identities) == 0 {
		return content, nil
	}
	first := k.identities[0]
	line, err := voucher(first, name, content)
	if err != nil {
		return nil, fmt.Errorf("encrypt %q: %w", name, err)
	}
	sealed, err := encrypt(first, line, content)
	if err != nil {
		return nil, fmt.Errorf("encrypt %q: %w", name, err)
	}
	return sealed, nil
}

// OpenValue is the content of which SealValue made a value of that name, under any identity of k. What isn't encrypted is
// refused, unless k is the zero Key. No error shows a content.
func (k Key) OpenValue(name string, sealed []byte) ([]byte, error) {
	content, err := k.openValue(name, sealed)
	if err != nil {
		return nil, fmt.Errorf("decrypt %q: %w", name, err)
	}
	return content, nil
}

func (k Key) openValue(name string, sealed []byte) ([]byte, error) {
	encrypted := bytes.HasPrefix(sealed, []byte(sealedBy))
	switch {
	case len(k.identities) == 0 && encrypted:
		return nil, errors.New("it is encrypted: name a keyFile that holds its key")
	case len(k.identities) == 0:
		return sealed, nil
	case !encrypted:
		return nil, fmt.Errorf("it is not encrypted, and keyFile %s says that it has to be", k.file)
	}
	for _, identity := range k.identities {
		plain, err := decrypted(identity, sealed)
		var another *age.NoIdentityMatchError
		switch {
		case errors.As(err, &another):
			continue
		case err != nil:
			return nil, errValue // age says of bytes that anybody may have written what is wrong with them
		}
		return vouched(identity, name, plain)
	}
	return nil, fmt.Errorf("it is encrypted under a key that keyFile %s does not hold: add it there", k.file)
}

// errValue says that a value is not the one that was sealed.
var errValue = errors.New("it was damaged, or written or renamed by somebody without the key")

// vouched is the content after the line that vouches for it.
func vouched(identity *age.X25519Identity, name string, plain []byte) ([]byte, error) {
	line, content, found := bytes.Cut(plain, []byte("\n"))
	if !found {
		return nil, errValue
	}
	want, err := voucher(identity, name, content)
	if err != nil {
		return nil, err
	}
	if !hmac.Equal(want, append(line, '\n')) {
		return nil, errValue
	}
	return content, nil
}

// voucher is a line that only who has the identity can make for a name and a content.
func voucher(identity *age.X25519Identity, name string, content []byte) ([]byte, error) {
	key, err := derived(identity, "sallyport: a value in a store")
	if err != nil {
		return nil, err
	}
	h := hmac.New(sha256.New, key)
	h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(name))))
	h.Write([]byte(name))
	h.Write(content)
	return append(hex.AppendEncode(nil, h.Sum(nil)), '\n'), nil
}
