package trial

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync"
	"time"

	"sallyport/bench/load"
)

// A Steady is a part of the load that goes on while rights end, of callers who keep theirs.
type Steady struct {
	Name   string  // how the callers prove who they are
	Rate   float64 // calls a second that were due
	Calls  uint64  // that were answered as wanted
	Errors load.Errors
	P99    time.Duration
	Took   time.Duration
}

// steadyParts are how the load is made up: most calls are of certificates in the handshake, others of certificates in a
// load balancer's header, or of tokens.
var steadyParts = [...]struct {
	name  string
	share float64
}{{"certificate", 0.6}, {"header", 0.2}, {"token", 0.2}}

const (
	steadyConnections = 16              // of each part
	steadyRound       = 5 * time.Second // a load is asked after each whether it is to go on
	steadyTokens      = 64
)

// A steadyLoad goes on until it is stopped.
type steadyLoad struct {
	stop  chan struct{}
	once  sync.Once
	group sync.WaitGroup
	parts [len(steadyParts)]Steady // each its own goroutine's, until all have ended
	errs  [len(steadyParts)]error
}

// startSteady begins the load of v, if it has any. End must be called.
func (v *revoking) startSteady(ctx context.Context) (*steadyLoad, error) {
	l := &steadyLoad{stop: make(chan struct{})}
	if v.Load == 0 {
		return l, nil
	}
	var kept []tls.Certificate
	for _, m := range v.of("") {
		kept = append(kept, m.Identity)
	}
	tokens, err := v.pki.Issuers[0].Tokens(steadyTokens)
	if err != nil {
		return l, err
	}
	for i, part := range steadyParts {
		c := load.Config{
			URL: "https://" + v.gateway.HTTPS + "/bench/steady/call", Connections: steadyConnections, Rate: v.Load * part.share,
			Duration: steadyRound, TLS: v.config().TLS, Identities: kept, Want: load.Want{Status: 200},
		}
		switch part.name {
		case "header":
			c.URL, c.TLS, c.Identities = "http://"+v.gateway.HTTP+"/bench/steady/call", nil, nil
			c.Headers = load.CertificateHeaders("X-WSO2-CLIENT-CERTIFICATE", kept)
		case "token":
			c.URL = "https://" + v.gateway.HTTPS + "/token/steady/call"
			for _, t := range tokens {
				c.Headers = append(c.Headers, load.Header{Name: "Authorization", Value: "Bearer " + t})
			}
		}
		l.group.Go(func() { l.parts[i], l.errs[i] = l.run(ctx, part.name, c) })
	}
	return l, nil
}

// run makes the calls of a part, round after round.
func (l *steadyLoad) run(ctx context.Context, name string, c load.Config) (Steady, error) {
	s := Steady{Name: name, Rate: c.Rate, Errors: load.Errors{}}
	for {
		r, err := load.Run(ctx, c)
		if err != nil {
			return s, fmt.Errorf("the load by %s: %w", name, err)
		}
		s.Calls, s.Errors, s.Took = s.Calls+r.Calls, s.Errors.And(r.Errors), s.Took+r.Elapsed
		s.P99 = max(s.P99, r.Latency.Quantile(0.99))
		select {
		case <-l.stop:
			return s, nil
		default:
		}
	}
}

// end lets each part finish its round, and returns how all have fared; none, if there is no load.
func (l *steadyLoad) end() ([]Steady, error) {
	l.once.Do(func() { close(l.stop) })
	l.group.Wait()
	if l.parts[0].Name == "" {
		return nil, nil
	}
	return l.parts[:], errors.Join(l.errs[:]...)
}
