package acme

import (
	"context"
	"crypto/rsa"
	"crypto/tls"
	"errors"
	"io/fs"
	"time"
)

// lastServed returns the certificate that has served last, with its key: this CA's, or else the one of other CAs' that
// ends last, which is due for renewal at once; nil if there is none.
func (i *issuer) lastServed(ctx context.Context, now time.Time) (pair *tls.Certificate, renews time.Time, err error) {
	if pair, err = i.load(ctx, i.servedKey()); err == nil {
		return pair, renewalTime(pair.Leaf, time.Time{}), nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, renews, err
	}
	others, err := children(ctx, i.storage, servedAt)
	if err != nil {
		return nil, renews, err
	}
	for _, other := range others {
		one, err := i.load(ctx, other+"/"+safe(i.name)+".pem")
		if err != nil || kindOf(one) != i.kind {
			continue // it is a help that nobody relies on
		}
		if pair == nil || one.Leaf.NotAfter.After(pair.Leaf.NotAfter) {
			pair, renews = one, now
		}
	}
	return pair, renews, nil
}

// load reads a certificate that is kept as one value with its key. What is neither is unreadable.
func (i *issuer) load(ctx context.Context, key string) (*tls.Certificate, error) {
	data, err := i.storage.Load(ctx, key)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(data, data)
	if err != nil {
		return nil, unreadable{err}
	}
	return &pair, nil
}

// kindOf returns the kind of a certificate's key.
func kindOf(pair *tls.Certificate) string {
	if _, ok := pair.Leaf.PublicKey.(*rsa.PublicKey); ok {
		return RSA
	}
	return ECDSA
}
