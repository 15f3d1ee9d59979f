package keystore

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"crypto/hmac"
	"crypto/md5"
	"crypto/pbkdf2"
	"crypto/rc4"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"hash"
)

// The file sets the iteration counts of PKCS #12's key derivations. One derivation takes at most maxIterations, which
// is Java's bound as well, and opening a store, or its keys, maxWork in all; tools write 1,000 to 100,000.
const (
	maxIterations = 5_000_000
	maxWork       = 10_000_000
)

// work is how many iterations may still be spent.
type work int

func (w *work) spend(iterations int) error {
	if iterations < 1 || iterations > maxIterations {
		return unusable("PKCS12: a key derivation of %d iterations, at most %d are done",
			iterations, maxIterations)
	}
	if *w -= work(iterations); *w < 0 {
		return unusable("PKCS12: key derivations of more than %d iterations in all", maxWork)
	}
	return nil
}

// errAlgorithm is what Java doesn't read either. Its text names the algorithm.
type errAlgorithm struct{ what string }

func (e errAlgorithm) Error() string { return e.what + " is not read here, nor by Java" }

// errSealed says that a password does not open something.
var errSealed = errors.New("sealed with another password")

var errNoIterations = unusable("PKCS12: a key derivation without iterations")

// A sealing is how something is encrypted under a password.
type sealing struct {
	iterations int
	open       func(password string, data []byte) ([]byte, error) // the error is errSealed, or says what is damaged
}

// sealingOf reads an AlgorithmIdentifier. It knows those of Java: PBES2 of PBKDF2 and AES (RFC 8018), PKCS #12's own of
// RC2, RC4 and 3DES (RFC 7292, appendix C), and PBES1 of MD5 and DES.
func sealingOf(der []byte) (sealing, error) {
	var algorithm pkix.AlgorithmIdentifier
	if err := unmarshal(der, &algorithm); err != nil {
		return sealing{}, err
	}
	params, id := algorithm.Parameters.FullBytes, algorithm.Algorithm.String()
	if algorithm.Algorithm.Equal(oidPBES2) {
		return pbes2(params)
	}
	scheme, known := pbes1[id]
	if !known {
		return sealing{}, errAlgorithm{"encryption by algorithm " + id}
	}
	var p struct {
		Salt       []byte
		Iterations int
	}
	if err := unmarshal(params, &p); err != nil {
		return sealing{}, err
	}
	if p.Iterations < 1 {
		return sealing{}, errNoIterations
	}
	return sealing{p.Iterations, func(password string, data []byte) ([]byte, error) {
		for _, secret := range scheme.secrets(password) {
			plain, err := scheme.open(secret, p.Salt, p.Iterations, data)
			if err == nil && beginsSequence(plain) {
				return plain, nil
			}
		}
		return nil, errSealed
	}}, nil
}

// beginsSequence reports whether a plain text can be a key or a list of entries. One secret in 256 that is not the right
// one leaves what looks like padding, and the next may be right.
func beginsSequence(plain []byte) bool {
	v, _, err := cutValue(plain)
	return err == nil && v.tag == tagSequence
}

// A scheme is a PBES1 of RFC 8018, or its like in PKCS #12.
type scheme struct {
	secrets func(password string) [][]byte
	open    func(secret, salt []byte, iterations int, data []byte) ([]byte, error)
}

var pbes1 = map[string]scheme{
	"1.2.840.113549.1.5.3":    {textSecret, openMD5DES},
	"1.2.840.113549.1.12.1.1": {sealingSecrets, openRC4(16)},
	"1.2.840.113549.1.12.1.2": {sealingSecrets, openRC4(5)},
	"1.2.840.113549.1.12.1.3": {sealingSecrets, open3DES},
	"1.2.840.113549.1.12.1.5": {sealingSecrets, openRC2(16)},
	"1.2.840.113549.1.12.1.6": {sealingSecrets, openRC2(5)},
}

func textSecret(password string) [][]byte { return [][]byte{[]byte(password)} }

// sealingSecrets are bmpSecrets and, beyond ASCII, what Java takes instead: the octets of UTF-8, seven bits of each.
func sealingSecrets(password string) [][]byte {
	var secret []byte
	ascii := true
	for _, b := range []byte(password) {
		ascii = ascii && b < 0x80
		secret = append(secret, 0, b&0x7f)
	}
	secrets := bmpSecrets(password)
	if !ascii {
		secrets = append(secrets, append(secret, 0, 0))
	}
	return secrets
}

// bmpSecrets returns what PKCS #12 derives keys from: UTF-16 with a final zero. Writers disagree on whether the empty
// password has one.
func bmpSecrets(password string) [][]byte {
	secrets := [][]byte{append(utf16Bytes(password), 0, 0)}
	if password == "" {
		secrets = append(secrets, nil)
	}
	return secrets
}

func openMD5DES(secret, salt []byte, iterations int, data []byte) ([]byte, error) {
	sum := md5.Sum(append(bytes.Clone(secret), salt...))
	for range iterations - 1 {
		sum = md5.Sum(sum[:])
	}
	block, err := des.NewCipher(sum[:8])
	if err != nil {
		return nil, err
	}
	return openCBC(block, sum[8:], data)
}

func open3DES(secret, salt []byte, iterations int, data []byte) ([]byte, error) {
	block, err := des.NewTripleDESCipher(deriveSHA1(useKey, secret, salt, iterations, 24))
	if err != nil {
		return nil, err
	}
	return openCBC(block, deriveSHA1(useIV, secret, salt, iterations, 8), data)
}

func openRC2(size int) func(secret, salt []byte, iterations int, data []byte) ([]byte, error) {
	return func(secret, salt []byte, iterations int, data []byte) ([]byte, error) {
		if len(data) == 0 || len(data)%8 != 0 {
			return nil, errSealed
		}
		key := deriveSHA1(useKey, secret, salt, iterations, size)
		return unpad(decryptRC2(key, deriveSHA1(useIV, secret, salt, iterations, 8), data), 8)
	}
}

// RC4 has no padding that would show a wrong password.
func openRC4(size int) func(secret, salt []byte, iterations int, data []byte) ([]byte, error) {
	return func(secret, salt []byte, iterations int, data []byte) ([]byte, error) {
		c, err := rc4.NewCipher(deriveSHA1(useKey, secret, salt, iterations, size))
		if err != nil {
			return nil, err
		}
		plain := make([]byte, len(data))
		c.XORKeyStream(plain, data)
		return plain, nil
	}
}

// pbes2 reads PBES2-params.
func pbes2(der []byte) (sealing, error) {
	var params struct{ KDF, Cipher pkix.AlgorithmIdentifier }
	if err := unmarshal(der, &params); err != nil {
		// Java 8 wrote the algorithm's identifier once more around them.
		var twice struct {
			ID     asn1.ObjectIdentifier
			Params asn1.RawValue
		}
		if unmarshal(der, &twice) != nil || unmarshal(twice.Params.FullBytes, &params) != nil {
			return sealing{}, err
		}
	}
	if !params.KDF.Algorithm.Equal(oidPBKDF2) {
		return sealing{}, errAlgorithm{"encryption by key derivation " + params.KDF.Algorithm.String()}
	}
	var kdf struct {
		Salt       asn1.RawValue
		Iterations int
		KeyLength  int                      `asn1:"optional"`
		PRF        pkix.AlgorithmIdentifier `asn1:"optional"`
	}
	if err := unmarshal(params.KDF.Parameters.FullBytes, &kdf); err != nil {
		return sealing{}, err
	}
	prf := sha1.New
	if len(kdf.PRF.Algorithm) > 0 {
		if prf = prfs[kdf.PRF.Algorithm.String()]; prf == nil {
			return sealing{}, errAlgorithm{"encryption by key derivation with " + kdf.PRF.Algorithm.String()}
		}
	}
	size := 0
	switch {
	case params.Cipher.Algorithm.Equal(oidAES128CBC):
		size = 16
	case params.Cipher.Algorithm.Equal(oidAES256CBC):
		size = 32
	default:
		return sealing{}, errAlgorithm{"encryption by cipher " + params.Cipher.Algorithm.String()}
	}
	var iv []byte
	if err := unmarshal(params.Cipher.Parameters.FullBytes, &iv); err != nil {
		return sealing{}, err
	}
	if kdf.Salt.FullBytes[0] != tagOctetString || len(iv) != aes.BlockSize {
		return sealing{}, unusable("PKCS12: a salt or an initial vector that is none")
	}
	if kdf.Iterations < 1 {
		return sealing{}, errNoIterations
	}
	return sealing{kdf.Iterations, func(password string, data []byte) ([]byte, error) {
		key, err := pbkdf2.Key(prf, password, kdf.Salt.Bytes, kdf.Iterations, size)
		if err != nil {
			return nil, err
		}
		block, err := aes.NewCipher(key)
		if err != nil {
			return nil, err
		}
		return openCBC(block, iv, data)
	}}, nil
}

func openCBC(block cipher.Block, iv, data []byte) ([]byte, error) {
	if len(data) == 0 || len(data)%block.BlockSize() != 0 {
		return nil, errSealed
	}
	plain := make([]byte, len(data))
	cipher.NewCBCDecrypter(block, iv).CryptBlocks(plain, data)
	return unpad(plain, block.BlockSize())
}

// unpad removes the padding of RFC 8018, section 6.1.1, which a wrong password hardly ever yields.
func unpad(plain []byte, size int) ([]byte, error) {
	n := int(plain[len(plain)-1])
	if n == 0 || n > size || !bytes.HasSuffix(plain, bytes.Repeat([]byte{byte(n)}, n)) {
		return nil, errSealed
	}
	return plain[:len(plain)-n], nil
}

// digests are the hash functions of MACs.
var digests = map[string]func() hash.Hash{
	"1.3.14.3.2.26":          sha1.New,
	"2.16.840.1.101.3.4.2.1": sha256.New,
	"2.16.840.1.101.3.4.2.2": sha512.New384,
	"2.16.840.1.101.3.4.2.3": sha512.New,
	"2.16.840.1.101.3.4.2.4": sha256.New224,
	"2.16.840.1.101.3.4.2.5": sha512.New512_224,
	"2.16.840.1.101.3.4.2.6": sha512.New512_256,
}

// prfs are those of PBKDF2.
var prfs = map[string]func() hash.Hash{
	"1.2.840.113549.2.7":  sha1.New,
	"1.2.840.113549.2.8":  sha256.New224,
	"1.2.840.113549.2.9":  sha256.New,
	"1.2.840.113549.2.10": sha512.New384,
	"1.2.840.113549.2.11": sha512.New,
	"1.2.840.113549.2.12": sha512.New512_224,
	"1.2.840.113549.2.13": sha512.New512_256,
}

// checkMAC reports whether mac is the one of message under password.
func checkMAC(h func() hash.Hash, password string, salt []byte, iterations int, message, mac []byte) bool {
	for _, secret := range bmpSecrets(password) {
		m := hmac.New(h, derive(h, useMAC, secret, salt, iterations, h().Size()))
		m.Write(message)
		if hmac.Equal(m.Sum(nil), mac) {
			return true
		}
	}
	return false
}

// What a derived key is for: the identifiers of RFC 7292, appendix B.3.
const (
	useKey = 1
	useIV  = 2
	useMAC = 3
)

func deriveSHA1(use byte, secret, salt []byte, iterations, size int) []byte {
	return derive(sha1.New, use, secret, salt, iterations, size)
}

// derive is the key derivation of RFC 7292, appendix B.2, in its words: I is salt and secret, each repeated to whole
// blocks, and is added to between the pieces of the key.
func derive(newHash func() hash.Hash, use byte, secret, salt []byte, iterations, size int) []byte {
	h := newHash()
	v := h.BlockSize()
	diversifier := bytes.Repeat([]byte{use}, v)
	input := append(repeat(salt, v), repeat(secret, v)...)
	var key []byte
	for {
		h.Reset()
		h.Write(diversifier)
		h.Write(input)
		a := h.Sum(nil)
		for range iterations - 1 {
			h.Reset()
			h.Write(a)
			a = h.Sum(a[:0])
		}
		if key = append(key, a...); len(key) >= size {
			return key[:size]
		}
		b := repeat(a, v)[:v]
		for j := 0; j < len(input); j += v {
			carry := 1
			for i := v - 1; i >= 0; i-- {
				carry += int(input[j+i]) + int(b[i])
				input[j+i] = byte(carry)
				carry >>= 8
			}
		}
	}
}

// repeat returns b over and over, to the next multiple of size. Nothing stays nothing.
func repeat(b []byte, size int) []byte {
	if len(b) == 0 {
		return nil
	}
	n := (len(b) + size - 1) / size * size
	return bytes.Repeat(b, n/len(b)+1)[:n]
}

var (
	oidPBES2     = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 13}
	oidPBMAC1    = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 14}
	oidPBKDF2    = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 12}
	oidAES128CBC = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 2}
	oidAES256CBC = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 42}
)

// unmarshal reads one value and fails if der has trailing bytes.
func unmarshal(der []byte, into any) error {
	rest, err := asn1.Unmarshal(der, into)
	if err != nil || len(rest) != 0 {
		return errDamaged
	}
	return nil
}
