package control

import (
	"context"
	"fmt"
	"sync"
	"time"

	"sallyport/listenerprofiles/revocation"
)

// Revocation is the state of each CRL and of whoever is asked about certificates.
func (l *Loop) Revocation() []revocation.Source { return l.revoked.State() }

// StaleLists has a line for each CRL file that counts no more, as the Assembly was built: what its issuer has issued is
// not known to be good. An Assembly that serves has none, its Loop tells.
func (a *Assembly) StaleLists() (lines []string) {
	if a.owns == nil {
		return nil
	}
	for _, s := range a.owns.revoked.State() {
		if s.Kind == revocation.File && s.Stale && s.Issuer != "" {
			lines = append(lines, fmt.Sprintf("CRL file %s, of %s: it counted until %s, and tells nothing good of certificates: put a newer one there",
				s.Location, s.Issuer, s.Until.UTC().Format(time.RFC3339)))
		}
	}
	return lines
}

// LookUp has whoever is to be asked about certificates be asked, for an Assembly that was built for reading, until stop is
// called, which waits for the end of it.
func (a *Assembly) LookUp(ctx context.Context) (stop func()) {
	if a.owns == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var task sync.WaitGroup
	task.Go(func() {
		defer a.owns.faults.Catch("looking revocations up", nil)
		_ = a.owns.revoked.Run(ctx) // it ends with ctx, and says so
	})
	return func() {
		cancel()
		task.Wait()
	}
}
