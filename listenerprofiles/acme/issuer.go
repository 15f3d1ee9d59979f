package acme

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
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
	now      func() time.Time
	name     string
	kind     string
}

// issuerKey names the CA and the kind of keys in the storage. The directory's host and path are for people: what is left
// of them in a storage's key may be the same for two directories.
func (s Settings) issuerKey(kind string) string {
	sum := sha256.Sum256([]byte(s.Directory))
	key := hex.EncodeToString(sum[:4])
	if u, err := url.Parse(s.Directory); err == nil {
		key = u.Host + "-" + strings.Trim(strings.ReplaceAll(u.Path, "/", "-"), "-") + "-" + key
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
	Location string    `json:"location"`
	At       time.Time `json:"at"`
}

// An order that the CA neither finishes nor ends is given up, and so is one that it has finished without handing out a
// certificate that can be used.
const (
	orderLife    = time.Hour
	finishedLife = 24 * time.Hour
)

// within reports whether an order is younger, by a clock that may have jumped.
func (k keptOrder) within(life time.Duration) bool { return time.Since(k.At).Abs() < life }

// GenerateKey implements certmagic.KeyGenerator: the pending key, or a new one if there is none or it can't be read.
func (i *issuer) GenerateKey() (crypto.PrivateKey, error) {
	ctx, cancel := context.WithTimeout(context.Background(), storageTime)
	defer cancel()
	if err := i.settle(ctx); err != nil {
		return nil, err
	}
	var text string
	if _, err := i.loadPending(ctx, ".key", &text); err != nil {
		return nil, err
	}
	if key, err := signer([]byte(text)); err == nil {
		return key, nil
	}
	text, err := newKey(i.kind)
	if err != nil {
		return nil, err
	}
	if err := keep(ctx, i.storage, i.pending(".key"), text); err != nil {
		return nil, err
	}
	return signer([]byte(text))
}

// loadPending is load of what is pending. What is there and can't be read is as good as nothing: it is replaced.
func (i *issuer) loadPending(ctx context.Context, what string, value any) (found bool, err error) {
	found, err = load(ctx, i.storage, i.pending(what), value)
	if errors.As(err, new(unreadable)) {
		i.log.Warn("what was kept of an order is lost, and begins anew", "name", i.name, "keys", i.kind, "error", err)
		return false, nil
	}
	return found, err
}

// settle forgets the pending order and key if the certificate that they were for is stored as a whole.
func (i *issuer) settle(ctx context.Context) error {
	var text string
	found, err := i.loadPending(ctx, ".key", &text)
	if err != nil || !found {
		return err
	}
	stored, _, err := i.stored(ctx)
	if err != nil || stored == nil || string(stored.key) != text {
		return err
	}
	if err := forget(ctx, i.storage, i.pending(".order")); err != nil {
		return err
	}
	return forget(ctx, i.storage, i.pending(".key"))
}

// unlock gives a lock back. What was done under it is done: a lock that can't be given back ends by itself.
func (i *issuer) unlock(ctx context.Context, lock string) {
	if err := i.storage.Unlock(context.WithoutCancel(ctx), lock); err != nil {
		i.log.Warn("a lock on certificates could not be given back", "lock", lock, "error", err)
	}
}

// Issue implements certmagic.Issuer.
func (i *issuer) Issue(ctx context.Context, csr *x509.CertificateRequest) (*certmagic.IssuedCertificate, error) {
	account, err := i.account(ctx)
	if err != nil {
		return nil, err
	}
	chain, err := i.issue(ctx, account, csr)
	if isProblem(err, acme.ProblemTypeAccountDoesNotExist) {
		i.log.Warn("the CA doesn't know the account any more: another one is made", "ca", i.settings.String())
		if account, err = i.anotherAccount(ctx, account); err != nil {
			return nil, err
		}
		chain, err = i.issue(ctx, account, csr)
	}
	if err != nil {
		return nil, err
	}
	return &certmagic.IssuedCertificate{Certificate: chain.ChainPEM, Metadata: chain}, nil
}

// issue has an order brought to its certificate, by one way of validation after the other.
func (i *issuer) issue(
	ctx context.Context, account acme.Account, csr *x509.CertificateRequest,
) (chain acme.Certificate, err error) {
	for _, kind := range i.kinds() {
		order, resumed, ordered := i.order(ctx, account)
		if ordered != nil {
			return chain, errors.Join(err, ordered)
		}
		i.log.Info("an order at the CA", "name", i.name, "keys", i.kind, "order", shown(order.Location), "goes_on", resumed)
		if order, err = i.carryOut(ctx, account, order, kind, csr); err == nil {
			if chain, err = i.fetch(ctx, account, order, csr); err == nil {
				return chain, nil
			}
		}
		if ctx.Err() != nil || !isFinal(err) {
			return chain, err // the next attempt goes on with it
		}
		if forgotten := forget(ctx, i.storage, i.pending(".order")); forgotten != nil {
			return chain, errors.Join(err, forgotten)
		}
		if !errors.As(err, new(notProven)) {
			return chain, err
		}
	}
	return chain, err
}

// fetch returns the certificate of a valid order, if it is the one that was asked for.
func (i *issuer) fetch(
	ctx context.Context, account acme.Account, order acme.Order, csr *x509.CertificateRequest,
) (chain acme.Certificate, err error) {
	chains, err := i.client.GetCertificateChain(ctx, account, order.Certificate)
	if err == nil && len(chains) == 0 {
		err = errors.New("the CA has none")
	}
	if err == nil {
		chain = chains[0]
		if wrong := i.check(chain.ChainPEM, csr.PublicKey); wrong != nil {
			err = final{wrong}
		}
	}
	if err != nil {
		return chain, fmt.Errorf("fetch the certificate of order %s: %w", order.Location, err)
	}
	return chain, nil
}

// check returns what is wrong with a certificate that the CA has issued: it may not replace one that serves.
func (i *issuer) check(chain []byte, key crypto.PublicKey) error {
	leaf, err := firstCertificate(chain)
	if err != nil {
		return err
	}
	public, ok := key.(interface{ Equal(crypto.PublicKey) bool })
	switch {
	case !ok || !public.Equal(leaf.PublicKey):
		return errors.New("it has another key")
	case ended(leaf, i.now()):
		return fmt.Errorf("it has ended on %s: look at the clocks", leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	return leaf.VerifyHostname(i.name)
}

// order returns the order that is under way, or a new one.
func (i *issuer) order(ctx context.Context, account acme.Account) (order acme.Order, resumed bool, err error) {
	var kept keptOrder
	found, err := i.loadPending(ctx, ".order", &kept)
	if err != nil {
		return order, false, err
	}
	if found {
		order, err = i.client.GetOrder(ctx, account, acme.Order{Location: kept.Location})
		order.Location = kept.Location
		switch {
		case err == nil && i.goesOn(order, kept):
			return order, true, nil
		case err != nil && !isRefused(err) && kept.within(orderLife):
			return order, false, fmt.Errorf("look at order %s: %w", kept.Location, err)
		}
	}
	wanted := acme.Order{Identifiers: []acme.Identifier{{Type: "dns", Value: i.name}}, Replaces: i.replaces(ctx)}
	order, err = i.client.NewOrder(ctx, account, wanted)
	if wanted.Replaces != "" && (isRefused(err) || isFault(err)) {
		wanted.Replaces = "" // a hint, which the CA may not like: it was replaced, isn't the CA's, or can't be found there
		order, err = i.client.NewOrder(ctx, account, wanted)
	}
	if err != nil {
		return order, false, fmt.Errorf("order a certificate: %w", err)
	}
	keeping, cancel := context.WithTimeout(context.WithoutCancel(ctx), storageTime) // the CA counts it already
	defer cancel()
	return order, false, keep(keeping, i.storage, i.pending(".order"), keptOrder{order.Location, time.Now()})
}

// goesOn reports whether a kept order can still become a certificate.
func (i *issuer) goesOn(order acme.Order, kept keptOrder) bool {
	life := orderLife
	if order.Status == acme.StatusValid {
		life = finishedLife
	}
	return order.Status != acme.StatusInvalid && kept.within(life) &&
		len(order.Identifiers) == 1 && order.Identifiers[0].Value == i.name
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
	if block == nil || block.Type != "CERTIFICATE" {
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
	if authz.Identifier.Value != i.name {
		return final{fmt.Errorf("authorization %s is for another name", at)}
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

// isFault reports whether the CA has answered a request with a fault of its own.
func isFault(err error) bool {
	var problem acme.Problem
	return errors.As(err, &problem) && problem.Status >= 500
}

func isProblem(err error, kind string) bool {
	var problem acme.Problem
	return errors.As(err, &problem) && problem.Type == kind
}

// GetRenewalInfo implements certmagic.RenewalInfoGetter.
func (i *issuer) GetRenewalInfo(ctx context.Context, cert certmagic.Certificate) (acme.RenewalInfo, error) {
	return i.client.GetRenewalInfo(ctx, cert.Leaf)
}
