package revocation

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"runtime"
	"sync/atomic"
	"time"
)

// Bounds of what is fetched.
const (
	fetchTime    = 5 * time.Minute // a CRL, in all
	pace         = 2 * time.Second // in each of which a CRL has to make progress
	paceBytes    = 4 << 10         // by so much
	longBytes    = 512 << 10       // by so much, when others wait for its memory
	maxRedirects = 3
	smallBody    = 4 << 20   // a longer one waits for memory
	bodiesBytes  = 128 << 20 // memory of longer ones at once
)

// newClient returns a client that speaks to CAs: without cookies, proxies and compression, and on no other host than it
// was sent to.
func newClient(roots *x509.CertPool) *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			TLSClientConfig:        &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout:    5 * time.Second,
			DisableCompression:     true,
			MaxConnsPerHost:        2 * maxPerResponder,
			MaxIdleConnsPerHost:    2,
			MaxIdleConns:           64,
			IdleConnTimeout:        30 * time.Second,
			ResponseHeaderTimeout:  30 * time.Second,
			MaxResponseHeaderBytes: 64 << 10,
		},
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			from := via[0].URL
			switch {
			case len(via) > maxRedirects:
				return fmt.Errorf("it redirects more than %d times", maxRedirects)
			case r.URL.Hostname() != from.Hostname():
				return errors.New("it redirects to another host")
			case checkAddress(r.URL.String()) != nil || from.Scheme == "https" && r.URL.Scheme != "https":
				return errors.New("it redirects to an address that is not asked")
			}
			return nil
		},
	}
}

// send sends a request. The error names neither method nor address.
func (r *Registry) send(q *http.Request) (*http.Response, error) {
	q.Header.Set("User-Agent", "Sallyport")
	res, err := r.client.Do(q)
	return res, plain(q.Context(), err)
}

// plain is why something could not be had, without the ports of connections, so that the same is told once.
func plain(ctx context.Context, err error) error {
	if why := context.Cause(ctx); err != nil && why != nil {
		return why
	}
	if one := (*url.Error)(nil); errors.As(err, &one) {
		err = one.Err
	}
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		err = fmt.Errorf("%s: %w", op.Op, op.Err)
	}
	return err
}

// errLate is why somebody is not waited for any longer.
type errLate string

func (e errLate) Error() string { return string(e) }

// post asks an OCSP responder.
func (r *Registry) post(ctx context.Context, at string, request []byte, budget time.Duration) ([]byte, error) {
	if err := checkAddress(at); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, budget, errLate("it has not answered within "+budget.String()))
	defer cancel()
	q, err := http.NewRequestWithContext(ctx, http.MethodPost, at, bytes.NewReader(request))
	if err != nil {
		return nil, err
	}
	q.Header.Set("Content-Type", "application/ocsp-request")
	q.Header.Set("Accept", "application/ocsp-response")
	res, err := r.send(q)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("it answers with status %d", res.StatusCode)
	}
	data, err := io.ReadAll(io.LimitReader(res.Body, maxResponse+1))
	switch {
	case err != nil:
		return nil, plain(ctx, err)
	case len(data) > maxResponse:
		return nil, fmt.Errorf("it answers with more than %d bytes", maxResponse)
	}
	return data, nil
}

// fetch looks at an address, and reports whether what is in force has changed.
func (r *Registry) fetch(ctx context.Context, s *source) (changed bool, err error) {
	if err := checkAddress(s.location); err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, fetchTime, errLate("it has not been had within "+fetchTime.String()))
	defer cancel()
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, s.location, nil)
	if err != nil {
		return false, err
	}
	asked := s.good && s.problem.Load() == nil && !s.isStale(r.options.Now())
	if asked && s.etag != "" {
		q.Header.Set("If-None-Match", s.etag)
	}
	if asked && s.modified != "" {
		q.Header.Set("If-Modified-Since", s.modified)
	}
	res, err := r.send(q)
	if err != nil {
		return false, err
	}
	defer res.Body.Close()
	switch {
	case res.StatusCode == http.StatusNotModified && asked:
		s.seenAgain(r.options.Now())
		return false, nil
	case res.StatusCode != http.StatusOK:
		return false, fmt.Errorf("it answers with status %d", res.StatusCode)
	}
	data, release, err := r.body(ctx, end, res)
	defer release()
	if err != nil {
		return false, plain(ctx, err)
	}
	if changed, err = r.read(s, data, r.options.Now()); err != nil {
		return changed, err
	}
	s.etag, s.modified = validators(res.Header)
	return changed, nil
}

// settles is how long after it was written a list is known not to be another one with the same validators.
const settles = 2 * time.Second

// validators are what tells whether a list has changed since, if anything does. Servers date lists, and NGINX makes its
// ETag, by the second: a list that was had so soon after it was written may be another one under the same date (RFC 9110,
// section 8.8.2.2).
func validators(h http.Header) (etag, modified string) {
	etag, modified = h.Get("ETag"), h.Get("Last-Modified")
	if modified == "" {
		return etag, ""
	}
	written, err := http.ParseTime(modified)
	sent, err2 := http.ParseTime(h.Get("Date"))
	if err != nil || err2 != nil || sent.Sub(written) < settles {
		return "", ""
	}
	return etag, modified
}

// body reads a list, for which there is memory until release is called. It grows in few steps: twice the memory of a
// list of 50 MB would be too much.
func (r *Registry) body(
	ctx context.Context, end context.CancelCauseFunc, res *http.Response,
) (data []byte, release func(), err error) {
	release = func() {}
	size := res.ContentLength
	if size > maxFile {
		return nil, release, fmt.Errorf("it is larger than %d bytes", maxFile)
	}
	slow := &watch{end: end, least: paceBytes}
	reader := io.TeeReader(res.Body, slow)
	stop := r.watch(slow)
	defer func() { stop() }()
	data = make([]byte, 0, 64<<10)
	for {
		n, err := reader.Read(data[len(data):cap(data)])
		data = data[:len(data)+n]
		switch {
		case err == io.EOF:
			return data, release, nil
		case err != nil:
			return nil, release, err
		case len(data) < cap(data):
			continue
		}
		if cap(data) > maxFile {
			return nil, release, fmt.Errorf("it is larger than %d bytes", maxFile)
		}
		grown := max(4*cap(data), int(size)+1)
		if grown > smallBody {
			if grown = int(size) + 1; size < 0 {
				grown = maxFile + 1
			}
			stop() // who waits for memory is not slow
			if err := r.bodies.Acquire(ctx, int64(grown)); err != nil {
				return nil, release, err
			}
			release = func() {
				runtime.GC() // or the next one would come on top of this one
				r.bodies.Release(int64(grown))
			}
			slow.least = longBytes
			stop = r.watch(slow)
		}
		data = append(make([]byte, 0, grown), data...)
	}
}

// A watch counts what is read.
type watch struct {
	end   context.CancelCauseFunc
	least int // bytes in each pace; changes while nobody watches
	read  atomic.Int64
}

func (w *watch) Write(p []byte) (int, error) {
	w.read.Add(int64(len(p)))
	return len(p), nil
}

// watch ends what is read too slowly, until stop is called.
func (r *Registry) watch(w *watch) (stop func()) {
	before, least := w.read.Load(), int64(w.least)
	timer := time.NewTimer(pace)
	over := make(chan struct{})
	r.watching.Go(func() {
		defer r.faults.Catch("watching how fast a CRL comes", nil)
		defer timer.Stop()
		for {
			select {
			case <-over:
				return
			case <-timer.C:
			}
			read := w.read.Load()
			if read-before < least {
				w.end(errLate(fmt.Sprintf("it sends less than %d bytes a second", least/int64(pace/time.Second))))
				return
			}
			before = read
			timer.Reset(pace)
		}
	})
	stopped := false
	return func() {
		if !stopped {
			stopped = true
			close(over)
		}
	}
}
