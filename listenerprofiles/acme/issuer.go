package acme

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"
)

// An issuer orders the certificates of one name with keys of one kind. It is certmagic's Issuer and KeyGenerator.
//
// The key, and the order as soon as the CA has given it a URL, are kept in the storage until the certificate is. So a
// process that is killed anywhere goes on with both; an order that the CA has finished meanwhile is only fetched.
type issuer struct {
	settings Settings
	client   *acme.Client
	storage  certmagic.Storage
	answers  answers
	log      *slog.Logger
	name     string
	kind     string
}

// issuerKey names the CA and the kind of keys in the storage.
func (s Settings) issuerKey(kind string) string {
	key := s.Directory
	if u, err := url.Parse(s.Directory); err == nil {
		key = u.Host + "-" + strings.Trim(strings.ReplaceAll(u.Path, "/", "-"), "-")
	}
	if kind != ECDSA {
		key += "-" + kind
	}
	return key
}

// IssuerKey implements certmagic.Issuer.
func (i *issuer) IssuerKey() string { return i.settings.issuerKey(i.kind) }

// pending returns where something of the certificate that is being issued is kept.
func (i *issuer) pending(what string) string {
	return pendingAt + safe(i.IssuerKey()) + "/" + safe(i.name) + what
}

// A keptOrder is an order that has begun.
type keptOrder struct {
	Location string `json:"location"`
}

// GenerateKey implements certmagic.KeyGenerator: the pending key if there is one. One that the stored certificate has is
// pending no more, and neither is its order.
func (i *issuer) GenerateKey() (crypto.PrivateKey, error) {
	ctx, cancel := context.WithTimeout(context.Background(), storageTime)
	defer cancel()
	var text string
	found, err := load(ctx, i.storage, i.pending(".key"), &text)
	if err != nil {
		return nil, err
	}
	if found {
		key, err := signer([]byte(text))
		if err != nil || !i.isStored(ctx, key) {
			return key, err
		}
		if err := i.done(ctx); err != nil {
			return nil, err
		}
	}
	if text, err = newKey(i.kind); err != nil {
		return nil, err
	}
	if err := keep(ctx, i.storage, i.pending(".key"), text); err != nil {
		return nil, err
	}
	return signer([]byte(text))
}

// isStored reports whether the stored certificate is one of a key.
func (i *issuer) isStored(ctx context.Context, key crypto.Signer) bool {
	data, err := i.storage.Load(ctx, certmagic.StorageKeys.SiteCert(i.IssuerKey(), i.name))
	if err != nil {
		return false
	}
	leaf, err := firstCertificate(data)
	public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	return err == nil && ok && public.Equal(leaf.PublicKey)
}

// done forgets the pending key and order: the certificate is kept.
func (i *issuer) done(ctx context.Context) error {
	return errors.Join(forget(ctx, i.storage, i.pending(".order")), forget(ctx, i.storage, i.pending(".key")))
}

// Issue implements certmagic.Issuer.
func (i *issuer) Issue(ctx context.Context, csr *x509.CertificateRequest) (*certmagic.IssuedCertificate, error) {
	chain, err := i.issue(ctx, csr)
	if isProblem(err, acme.ProblemTypeAccountDoesNotExist) {
		if err := i.forgetAccount(ctx); err != nil {
			return nil, err
		}
		i.log.Warn("the CA doesn't know the account any more: another one is made", "ca", i.settings.String())
		chain, err = i.issue(ctx, csr)
	}
	if err != nil {
		return nil, err
	}
	return &certmagic.IssuedCertificate{Certificate: chain.ChainPEM, Metadata: chain}, nil
}

func (i *issuer) issue(ctx context.Context, csr *x509.CertificateRequest) (chain acme.Certificate, err error) {
	account, err := i.account(ctx)
	if err != nil {
		return chain, err
	}
	order, err := i.obtain(ctx, account, csr)
	if err != nil {
		return chain, err
	}
	chains, err := i.client.GetCertificateChain(ctx, account, order.Certificate)
	if err == nil && len(chains) == 0 {
		err = errors.New("the CA has no certificate for a valid order")
	}
	if err != nil {
		return chain, fmt.Errorf("fetch the certificate of order %s: %w", order.Location, err)
	}
	return chains[0], nil
}

// obtain has an order brought to its certificate, by one way of validation after the other.
func (i *issuer) obtain(ctx context.Context, account acme.Account, csr *x509.CertificateRequest) (order acme.Order, err error) {
	for _, kind := range i.kinds() {
		var resumed bool
		order, resumed, ordered := i.order(ctx, account)
		if ordered != nil {
			return order, errors.Join(err, ordered)
		}
		i.log.Info("an order at the CA", "name", i.name, "keys", i.kind, "order", order.Location, "goes_on", resumed)
		if order, err = i.carryOut(ctx, account, order, kind, csr); err == nil {
			return order, nil
		}
		if ctx.Err() != nil || !isFinal(err) {
			return order, err // the next attempt goes on with it
		}
		if forgotten := forget(ctx, i.storage, i.pending(".order")); forgotten != nil {
			return order, errors.Join(err, forgotten)
		}
		if !errors.As(err, new(notProven)) {
			return order, err
		}
	}
	return order, err
}

// order returns the order that is under way, or a new one.
func (i *issuer) order(ctx context.Context, account acme.Account) (order acme.Order, resumed bool, err error) {
	var kept keptOrder
	found, err := load(ctx, i.storage, i.pending(".order"), &kept)
	if err != nil {
		return order, false, err
	}
	if found {
		order, err = i.client.GetOrder(ctx, account, acme.Order{Location: kept.Location})
		order.Location = kept.Location
		switch {
		case err == nil && order.Status != acme.StatusInvalid && len(order.Identifiers) == 1 && order.Identifiers[0].Value == i.name:
			return order, true, nil
		case err != nil && !isRefused(err):
			return order, false, fmt.Errorf("look at order %s: %w", kept.Location, err)
		}
	}
	wanted := acme.Order{Identifiers: []acme.Identifier{{Type: "dns", Value: i.name}}, Replaces: i.replaces(ctx)}
	order, err = i.client.NewOrder(ctx, account, wanted)
	if wanted.Replaces != "" && isRefused(err) {
		wanted.Replaces = "" // a hint, which the CA may not like: it was replaced, or isn't the CA's
		order, err = i.client.NewOrder(ctx, account, wanted)
	}
	if err != nil {
		return order, false, fmt.Errorf("order a certificate: %w", err)
	}
	return order, false, keep(ctx, i.storage, i.pending(".order"), keptOrder{order.Location})
}

// replaces identifies the certificate that a new one will replace (RFC 9773 section 5); "" if there is none.
func (i *issuer) replaces(ctx context.Context) string {
	data, err := i.storage.Load(ctx, certmagic.StorageKeys.SiteCert(i.IssuerKey(), i.name))
	if err != nil {
		return ""
	}
	leaf, err := firstCertificate(data)
	if err != nil || len(leaf.AuthorityKeyId) == 0 {
		return ""
	}
	directory, err := i.client.GetDirectory(ctx)
	if err != nil || directory.RenewalInfo == "" {
		return ""
	}
	id, err := acme.ARIUniqueIdentifier(leaf)
	if err != nil {
		return ""
	}
	return id
}

func firstCertificate(chain []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(chain)
	if block == nil {
		return nil, errors.New("no certificate in PEM")
	}
	return x509.ParseCertificate(block.Bytes)
}

// carryOut brings an order to its certificate, whatever state it is in.
func (i *issuer) carryOut(
	ctx context.Context, account acme.Account, order acme.Order, kind string, csr *x509.CertificateRequest,
) (acme.Order, error) {
	if order.Status == acme.StatusPending {
		for _, at := range order.Authorizations {
			if err := i.prove(ctx, account, at, kind); err != nil {
				return order, err
			}
		}
		order.Status = acme.StatusReady
	}
	location := order.Location
	if order.Status == acme.StatusReady {
		finished, err := i.client.FinalizeOrder(ctx, account, order, csr.Raw)
		if finished.Location = location; err != nil {
			return finished, fmt.Errorf("finalize order %s: %w", location, err)
		}
		order = finished
	}
	for began := time.Now(); order.Status == acme.StatusProcessing; {
		if time.Since(began) > validationTime {
			return order, fmt.Errorf("order %s is still being processed by the CA", location)
		}
		select {
		case <-ctx.Done():
			return order, ctx.Err()
		case <-time.After(time.Second):
		}
		next, err := i.client.GetOrder(ctx, account, order)
		if next.Location = location; err != nil {
			return order, fmt.Errorf("look at order %s: %w", location, err)
		}
		order = next
	}
	if order.Status != acme.StatusValid {
		return order, final{fmt.Errorf("order %s is %s", location, order.Status)}
	}
	return order, nil
}

// prove has the CA validate the name, if it doesn't hold it for proven.
func (i *issuer) prove(ctx context.Context, account acme.Account, at, kind string) (err error) {
	authz, err := i.client.GetAuthorization(ctx, account, at)
	if err != nil {
		return fmt.Errorf("look at authorization %s: %w", at, err)
	}
	if authz.Status == acme.StatusValid {
		return nil
	}
	if authz.Status != acme.StatusPending {
		return notProven{fmt.Errorf("authorization %s is %s", at, authz.Status)}
	}
	for _, c := range authz.Challenges {
		if c.Type != kind {
			continue
		}
		close, err := i.answers.open(ctx, c)
		if err != nil {
			return fmt.Errorf("answer the CA's validation: %w", err)
		}
		defer close()
		if c.Status == acme.StatusPending {
			if _, err := i.client.InitiateChallenge(ctx, account, c); err != nil {
				return fmt.Errorf("have the CA validate %s: %w", i.name, err)
			}
		}
		authz, err = i.client.PollAuthorization(ctx, account, authz)
		if err != nil && authz.Status != acme.StatusPending {
			return notProven{fmt.Errorf("the CA could not validate %s by %s: %w", i.name, kind, err)}
		}
		return err
	}
	return notProven{fmt.Errorf("the CA does not offer to validate %s by %s", i.name, kind)}
}

// kinds returns the ways of validation in the order in which they are tried.
func (i *issuer) kinds() (list []string) {
	if i.settings.TLSALPN {
		list = append(list, acme.ChallengeTypeTLSALPN01)
	}
	if i.settings.HTTP {
		list = append(list, acme.ChallengeTypeHTTP01)
	}
	return list
}

// A final error ends an order: there is nothing in it to go on with.
type final struct{ error }

// Unwrap returns the cause.
func (e final) Unwrap() error { return e.error }

// notProven is a final error after which another way of validation may succeed.
type notProven struct{ error }

// Unwrap returns the cause.
func (e notProven) Unwrap() error { return e.error }

// isFinal reports whether an order is of no use any more.
func isFinal(err error) bool {
	return errors.As(err, new(final)) || errors.As(err, new(notProven)) || isRefused(err)
}

// isRefused reports whether the CA has understood a request and refused it for good.
func isRefused(err error) bool {
	var problem acme.Problem
	return errors.As(err, &problem) && problem.Status >= 400 && problem.Status < 500 &&
		problem.Status != http.StatusTooManyRequests && problem.Type != acme.ProblemTypeBadNonce &&
		problem.Type != acme.ProblemTypeAccountDoesNotExist
}

func isProblem(err error, kind string) bool {
	var problem acme.Problem
	return errors.As(err, &problem) && problem.Type == kind
}

// GetRenewalInfo implements certmagic.RenewalInfoGetter.
func (i *issuer) GetRenewalInfo(ctx context.Context, cert certmagic.Certificate) (acme.RenewalInfo, error) {
	return i.client.GetRenewalInfo(ctx, cert.Leaf)
}
