package acme

import (
	"context"
	"crypto"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"
)

// A keptAccount is an account at a CA. Its key is kept before the CA is asked, so that no account is without its key.
type keptAccount struct {
	Location string `json:"location,omitempty"` // the account's URL; "": the CA has not answered yet
	Key      string `json:"key"`                // PEM
}

// accountAt is where the account is kept. Another external account is another account.
func (s Settings) accountAt() string {
	key := accountsAt + safe(s.issuerKey(ECDSA))
	if s.KeyID != "" {
		sum := sha256.Sum256([]byte(s.KeyID))
		key += "-" + hex.EncodeToString(sum[:8])
	}
	return key + ".json"
}

// account returns the account at the CA, and makes one if there is none.
func (i *issuer) account(ctx context.Context) (acme.Account, error) {
	return i.anotherAccount(ctx, acme.Account{})
}

// anotherAccount is account where the CA doesn't know a certain one any more.
func (i *issuer) anotherAccount(ctx context.Context, than acme.Account) (account acme.Account, err error) {
	lock := "account_" + i.settings.accountAt()
	if err := i.storage.Lock(ctx, lock); err != nil {
		return account, fmt.Errorf("storage: lock the account: %w", err)
	}
	defer i.unlock(ctx, lock)
	var kept keptAccount
	found, err := load(ctx, i.storage, i.settings.accountAt(), &kept)
	if err != nil {
		return account, err
	}
	if !found || kept.Location != "" && kept.Location == than.Location {
		kept = keptAccount{}
		if kept.Key, err = newKey(ECDSA); err != nil {
			return account, err
		}
		if err := keep(ctx, i.storage, i.settings.accountAt(), kept); err != nil {
			return account, err
		}
	}
	key, err := signer([]byte(kept.Key))
	if err != nil {
		return account, fmt.Errorf("storage: %s: %w", i.settings.accountAt(), err)
	}
	account = acme.Account{Status: acme.StatusValid, Location: kept.Location, PrivateKey: key}
	if kept.Location != "" {
		return account, nil
	}
	account.Status, account.TermsOfServiceAgreed = "", true
	if i.settings.Email != "" {
		account.Contact = []string{"mailto:" + i.settings.Email}
	}
	if i.settings.KeyID != "" {
		eab := acme.EAB{KeyID: i.settings.KeyID, MACKey: i.settings.HMAC}
		if err := account.SetExternalAccountBinding(ctx, i.client, eab); err != nil {
			return account, fmt.Errorf("the external account: %w", err)
		}
	}
	account, err = i.client.NewAccount(ctx, account)
	if err != nil {
		return account, fmt.Errorf("make an account at the CA: %w", err)
	}
	i.log.Info("there is an account at the CA now", "ca", i.settings.String(), "account", shown(account.Location))
	kept.Location, account.PrivateKey, account.Status = account.Location, key, acme.StatusValid
	return account, keep(ctx, i.storage, i.settings.accountAt(), kept)
}

// newKey returns a private key in PEM.
func newKey(kind string) (string, error) {
	generator := certmagic.StandardKeyGenerator{KeyType: certmagic.P256}
	if kind == RSA {
		generator.KeyType = certmagic.RSA2048
	}
	key, err := generator.GenerateKey()
	if err != nil {
		return "", err
	}
	text, err := certmagic.PEMEncodePrivateKey(key)
	return string(text), err
}

func signer(pem []byte) (crypto.Signer, error) {
	key, err := certmagic.PEMDecodePrivateKey(pem)
	if err != nil {
		return nil, errors.New("the key can't be read")
	}
	return key, nil
}
