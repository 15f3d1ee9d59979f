package trial

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/crypto/ocsp"

	"sallyport/bench/pki"
)

// A publisher is where a gateway asks which certificates are revoked: a CRL by one CA and an OCSP responder of another.
type publisher struct {
	List, Responder string // their URLs

	lists, answers *pki.Authority
	listener       net.Listener
	server         *http.Server
	ended          chan error

	mu      sync.Mutex
	number  int64
	list    []byte               // the CRL, in DER
	shown   time.Time            // when the CRL was given out for the first time; zero: not yet
	revoked map[string]time.Time // by serial number: when that was told for the first time; zero: not yet
}

func publish(lists, answers *pki.Authority) (*publisher, error) {
	p := &publisher{lists: lists, answers: answers, ended: make(chan error, 1), revoked: map[string]time.Time{}}
	if err := p.replaceList(nil); err != nil {
		return nil, err
	}
	var err error
	if p.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return nil, fmt.Errorf("publishing a CRL: %w", err)
	}
	p.List = fmt.Sprintf("http://%s/list.crl", p.listener.Addr())
	p.Responder = fmt.Sprintf("http://%s/ocsp", p.listener.Addr())
	mux := http.NewServeMux()
	mux.HandleFunc("GET /list.crl", p.giveList)
	mux.HandleFunc("POST /ocsp", p.answer)
	p.server = &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	go func() { p.ended <- p.server.Serve(p.listener) }() // close waits for it
	return p, nil
}

func (p *publisher) close() error {
	err := p.server.Close()
	if ended := <-p.ended; !errors.Is(ended, http.ErrServerClosed) {
		err = errors.Join(err, ended)
	}
	return err
}

// replaceList publishes another CRL.
func (p *publisher) replaceList(revoked []*x509.Certificate) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.number++
	text, err := p.lists.CRL(p.number, revoked)
	if err != nil {
		return err
	}
	block, _ := pem.Decode(text) // which a PEM of ours always has
	p.list, p.shown = block.Bytes, time.Time{}
	return nil
}

// revoke has the responder tell from now on that the certificates are revoked.
func (p *publisher) revoke(list []*x509.Certificate) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range list {
		p.revoked[c.SerialNumber.String()] = time.Time{}
	}
}

// listShown returns when the CRL was given out for the first time.
func (p *publisher) listShown() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.shown
}

// told returns when the responder has first told that a certificate is revoked.
func (p *publisher) told(c *x509.Certificate) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.revoked[c.SerialNumber.String()]
}

func (p *publisher) giveList(w http.ResponseWriter, _ *http.Request) {
	p.mu.Lock()
	data := p.list
	if p.shown.IsZero() {
		p.shown = time.Now()
	}
	p.mu.Unlock()
	w.Header().Set("Content-Type", "application/pkix-crl")
	w.Write(data)
}

func (p *publisher) answer(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 64<<10))
	if err != nil {
		http.Error(w, "the request is not read", http.StatusBadRequest)
		return
	}
	question, err := ocsp.ParseRequest(body)
	if err != nil {
		http.Error(w, "not an OCSP request", http.StatusBadRequest)
		return
	}
	data, err := p.sign(question.SerialNumber)
	if err != nil {
		http.Error(w, "no answer", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/ocsp-response")
	w.Write(data)
}

func (p *publisher) sign(serial *big.Int) ([]byte, error) {
	p.mu.Lock()
	told, revoked := p.revoked[serial.String()]
	if revoked && told.IsZero() {
		p.revoked[serial.String()] = time.Now()
	}
	p.mu.Unlock()
	return p.answers.OCSP(serial, revoked)
}
