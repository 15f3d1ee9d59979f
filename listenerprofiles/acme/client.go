package acme

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/mholt/acmez/v3/acme"
)

const (
	requestTimeout = 30 * time.Second
	validationTime = 3 * time.Minute // for a validation, and for the issuing of a certificate
	maxAnswer      = 1 << 20         // bytes of an answer
	maxHeader      = 64 << 10        // bytes of its header
	maxHold        = 24 * time.Hour  // how long a CA may want to be left alone
)

// client returns a client of the CA's. It knows nothing yet: one that has read half a directory never reads it again.
func (m *Manager) client() *acme.Client {
	return &acme.Client{
		Directory:   m.cfg.Directory,
		HTTPClient:  m.ca,
		UserAgent:   "sallyport",
		PollTimeout: validationTime,
	}
}

// newHTTPClient returns a client that goes to no other host than it is told to, and reads bounded answers.
func newHTTPClient(roots *x509.CertPool) *http.Client {
	return &http.Client{
		Timeout: requestTimeout,
		Transport: bounded{&http.Transport{
			Proxy:               http.ProxyFromEnvironment,
			TLSClientConfig:     &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
			ForceAttemptHTTP2:   true,
			MaxIdleConnsPerHost: 2,
			IdleConnTimeout:     time.Minute,

			MaxResponseHeaderBytes: maxHeader,
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

// bounded ends answers that are too long, notes in a context's hold for how long the server wants to be left alone, and has
// a validation or an order looked at once a second at most where the server asks for more.
type bounded struct{ http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := b.RoundTripper.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	res.Body = &boundedBody{res.Body, maxAnswer}
	res.Header.Del("Link") // acmez follows those of chains, which may lead in circles, and nobody wants alternative ones
	if hold, ok := r.Context().Value(holdKey{}).(*time.Duration); ok && isBusy(res.StatusCode) {
		*hold = max(*hold, min(retryAfterOf(res.Header, time.Now()), maxHold))
	}
	if r.Method == http.MethodPost && res.Header.Get("Retry-After") != "" && retryAfterOf(res.Header, time.Now()) < time.Second {
		res.Header.Set("Retry-After", "1") // acmez would ask again at once, or give up on a time that it can't read
	}
	return res, nil
}

// A holdKey is the key of a context's hold, a *time.Duration.
type holdKey struct{}

func isBusy(status int) bool {
	return status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable
}

// retryAfterOf reads a Retry-After header (RFC 9110 section 10.2.3); 0 if there is none that can be read.
func retryAfterOf(h http.Header, now time.Time) time.Duration {
	text := h.Get("Retry-After")
	if seconds, err := strconv.ParseUint(text, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return at.Sub(now)
	}
	return 0
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
