package trust

import (
	"cmp"
	"crypto/rsa"
	"crypto/x509"
	"fmt"

	"sallyport/listenerprofiles/keystore"
)

// Bounds limit the certificates that a client may show, so that whoever is a stranger costs little: they hold before
// any signature is verified. A zero field means its default. Keys other than RSA are bounded by their kinds.
type Bounds struct {
	Bytes        int // of all certificates together, as DER; 0: 32 KiB
	Certificates int // how many; 0: keystore.MaxChain, more than which Verify never looks at
	KeyBits      int // of an RSA key in any of them; 0: 8,192, more than which crypto/tls refuses
}

// WithDefaults returns the bounds that hold.
func (b Bounds) WithDefaults() Bounds {
	b.Bytes = cmp.Or(b.Bytes, 32<<10)
	b.Certificates = cmp.Or(b.Certificates, keystore.MaxChain)
	b.KeyBits = cmp.Or(b.KeyBits, maxRSABits)
	return b
}

// HoldDER returns an error if a list of certificates is beyond the bounds. It does not look into them.
func (b Bounds) HoldDER(list [][]byte) error {
	size := 0
	for _, der := range list {
		size += len(der)
	}
	return b.hold(len(list), size)
}

// Hold returns an error if a chain is beyond the bounds.
func (b Bounds) Hold(chain []*x509.Certificate) error {
	size := 0
	for _, cert := range chain {
		size += len(cert.Raw)
	}
	if err := b.hold(len(chain), size); err != nil {
		return err
	}
	for _, cert := range chain {
		if n := rsaBits(cert); n > b.WithDefaults().KeyBits {
			return fmt.Errorf("certificates with an RSA key of %d bits, more than limits.certificateKeyBits, %d",
				n, b.WithDefaults().KeyBits)
		}
	}
	return nil
}

func (b Bounds) hold(count, size int) error {
	switch b = b.WithDefaults(); {
	case count > b.Certificates:
		return fmt.Errorf("%d certificates, more than limits.certificates, %d", count, b.Certificates)
	case size > b.Bytes:
		return fmt.Errorf("certificates of %d bytes, more than limits.certificateBytes, %d", size, b.Bytes)
	}
	return nil
}

// rsaBits is the size of a certificate's RSA key; 0 if its key is of another kind.
func rsaBits(cert *x509.Certificate) int {
	if key, ok := cert.PublicKey.(*rsa.PublicKey); ok {
		return key.N.BitLen()
	}
	return 0
}
