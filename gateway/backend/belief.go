package backend

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/internal/contain"
	"sallyport/listenerprofiles/trust"
)

// clientTLS is how TLS is spoken to the server. crypto/tls verifies path, validity, usage and name; verify adds what it
// does not know.
func (s *Server) clientTLS(u Upstream, name string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12, RootCAs: u.Roots, Certificates: u.Certificates, ServerName: name,
		VerifyConnection: func(state tls.ConnectionState) error { // for HTTP/2 on a goroutine of net/http
			return contain.Do("judging a server's certificate", func() error {
				return trust.JudgeServer(state.VerifiedChains, s.denials())
			})
		},
	}
}

// denials is the deny list in force.
func (s *Server) denials() *trust.Denials {
	if s.denied == nil {
		return nil
	}
	return s.denied()
}

// A shown is what a server has shown when a connection to it began. It is asked for each call, so that a deny list ends
// kept connections too; unless the list has changed since, that is one comparison. Its zero value is a plain connection.
type shown struct {
	once   sync.Once
	marks  []trust.Marks // of all certificates on all paths
	judged atomic.Pointer[trust.Denials]
}

// note takes what was shown.
func (s *shown) note(paths [][]*x509.Certificate) {
	for _, path := range paths {
		for _, cert := range path {
			s.marks = append(s.marks, trust.MarksOf(cert))
		}
	}
}

// deniedBy returns the entry of a deny list that names the server now, or an issuer; nil if none does.
func (s *shown) deniedBy(list *trust.Denials) *trust.Denial {
	if len(s.marks) == 0 || s.judged.Load() == list {
		return nil
	}
	for _, m := range s.marks {
		if entry := list.FindMarks(m); entry != nil {
			return entry
		}
	}
	s.judged.Store(list)
	return nil
}

// unbelieved is the error of a handshake, with the cause as one word if it is the server's certificate that is not
// believed.
func unbelieved(err error) error {
	if trust.CauseOf(err) == "" {
		f := trust.ServerFault(err, time.Now())
		if f == nil {
			return err
		}
		err = f
	}
	return &errHandshake{fmt.Errorf("the server's certificate is not believed (%s): %w", trust.CauseOf(err), err)}
}
