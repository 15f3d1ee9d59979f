package token

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"sallyport/internal/printable"
	"sallyport/internal/regularfile"
)

// maxRedirects is how many redirects within its own host a JWKS URL may take.
const maxRedirects = 3

// A remote is a JWKS at a URL. It has one reader at a time.
type remote struct {
	url    *url.URL
	caFile string
	log    *slog.Logger

	roots   []byte // the content of caFile that client trusts
	trusted atomic.Pointer[roots]
	client  *http.Client
}

func newRemote(address, caFile string, log *slog.Logger) (*remote, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, errors.New("the JWKS is not a URL") // the error would quote it
	}
	switch {
	case u.Scheme != "https" && u.Scheme != "http":
		return nil, fmt.Errorf("the JWKS has the scheme %s, not https or http", printable.Quote(u.Scheme))
	case u.Hostname() == "":
		return nil, errors.New("the JWKS is a URL without a host")
	case u.User != nil:
		return nil, errors.New("the JWKS is a URL with a user, which is not supported")
	case caFile != "" && u.Scheme != "https":
		return nil, errors.New("a CA file is for a JWKS with an https URL")
	}
	r := &remote{url: u, caFile: caFile, log: log}
	if err := r.prepare(); err != nil {
		return nil, err
	}
	return r, nil
}

// exposed reports whether keys could be changed in transit.
func (r *remote) exposed() bool {
	host := r.url.Hostname()
	return r.url.Scheme == "http" && host != "localhost" && !net.ParseIP(host).IsLoopback()
}

// read fetches the JWKS. ctx bounds it all, the body included.
func (r *remote) read(ctx context.Context) ([]byte, error) {
	if err := r.prepare(); err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url.String(), nil)
	if err != nil {
		return nil, errors.New("asking for the JWKS: the URL makes no request")
	}
	request.Header.Set("Accept", "application/jwk-set+json, application/json")
	response, err := r.client.Do(request)
	if err != nil {
		var quoting *url.Error // a query in the URL may be a secret
		if errors.As(err, &quoting) {
			err = quoting.Err
		}
		return nil, fmt.Errorf("asking for the JWKS: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("asking for the JWKS: status %d", response.StatusCode)
	}
	content, err := io.ReadAll(io.LimitReader(response.Body, maxSource+1))
	if err != nil {
		return nil, fmt.Errorf("reading the JWKS: %w", err)
	}
	if len(content) > maxSource {
		return nil, fmt.Errorf("reading the JWKS: more than %d bytes", maxSource)
	}
	return content, nil
}

// prepare creates the client, and replaces it when the CA file has changed.
func (r *remote) prepare() error {
	var content []byte
	var trusted roots
	var err error
	if r.caFile != "" {
		if content, err = readFile(r.caFile); err != nil {
			return err
		}
	}
	if r.client != nil && bytes.Equal(content, r.roots) {
		return nil
	}
	if r.caFile != "" {
		if trusted, err = parseRoots(content); err != nil {
			return err
		}
	}
	r.roots = content
	r.trusted.Store(&trusted)
	for _, reason := range first(trusted.skipped, 10) {
		r.log.Warn("a certificate of the CA file is not used", "file", r.caFile, "err", reason)
	}
	r.client = &http.Client{
		CheckRedirect: func(next *http.Request, via []*http.Request) error {
			if next.URL.Scheme != r.url.Scheme || next.URL.Host != r.url.Host {
				return errors.New("it redirects to another host")
			}
			if len(via) > maxRedirects {
				return errors.New("it redirects without end")
			}
			return nil
		},
		Transport: &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			TLSClientConfig:        &tls.Config{RootCAs: trusted.pool, MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout:    10 * time.Second,
			MaxResponseHeaderBytes: 64 << 10,
			DisableKeepAlives:      true, // minutes lie between two fetches
			DisableCompression:     true, // a small answer that grows is not wanted
		},
	}
	return nil
}

func readFile(name string) ([]byte, error) {
	content, err := regularfile.Read(name, maxSource)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	return content, nil
}
