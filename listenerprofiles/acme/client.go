package acme

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/mholt/acmez/v3/acme"
)

const (
	requestTimeout = 30 * time.Second
	validationTime = 3 * time.Minute // for a validation, and for the issuing of a certificate
	maxAnswer      = 1 << 20         // bytes of an answer
)

// newClient returns a client of the CA's. It goes to no other host than it is told to, and reads bounded answers.
func newClient(s Settings, roots *x509.CertPool) *acme.Client {
	return &acme.Client{
		Directory:   s.Directory,
		HTTPClient:  newHTTPClient(roots),
		UserAgent:   "sallyport",
		PollTimeout: validationTime,
	}
}

func newHTTPClient(roots *x509.CertPool) *http.Client {
	return &http.Client{
		Timeout: requestTimeout,
		Transport: bounded{&http.Transport{
			Proxy:               http.ProxyFromEnvironment,
			TLSClientConfig:     &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
			ForceAttemptHTTP2:   true,
			MaxIdleConnsPerHost: 2,
			IdleConnTimeout:     time.Minute,
		}},
		CheckRedirect: sameHost,
	}
}

// sameHost ends redirects that lead elsewhere, or nowhere.
func sameHost(r *http.Request, via []*http.Request) error {
	first := via[0].URL
	if r.URL.Host != first.Host || r.URL.Scheme != first.Scheme {
		return errors.New("it redirects to " + (&url.URL{Scheme: r.URL.Scheme, Host: r.URL.Host}).String() + ", another host")
	}
	if len(via) > 3 {
		return errors.New("it redirects too often")
	}
	return nil
}

// bounded ends answers that are too long.
type bounded struct{ http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := b.RoundTripper.RoundTrip(r)
	if err == nil {
		res.Body = &boundedBody{res.Body, maxAnswer}
	}
	return res, err
}

type boundedBody struct {
	io.ReadCloser
	left int
}

var errTooLong = errors.New("the answer is longer than 1 MiB")

// Read implements io.Reader.
func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errTooLong
	}
	n, err := b.ReadCloser.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}
