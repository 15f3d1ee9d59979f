package trial

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"sallyport/bench/load"
	"sallyport/bench/peer"
)

// A RevokeResult is how long changes of registrations took, from the return of the command, in ascending order.
type RevokeResult struct {
	Admitted []time.Duration // from cert add to the first admitted call
	Refused  []time.Duration // from cert remove to the first refused call
}

// Revoke registers a certificate, calls on one connection until it is admitted, removes it, and calls on the same
// connection until it is refused; n times, each with a new certificate.
func Revoke(ctx context.Context, s Setup, p peer.Program, n int) (r RevokeResult, err error) {
	b, err := s.open(ctx, p, false)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	for i := range n {
		b.Progress.Pass("revoking certificate %d of %d", i+1, n)
		admitted, refused, err := b.revoke(ctx, fmt.Sprintf("revoked-%d", i))
		if err != nil {
			return r, err
		}
		r.Admitted, r.Refused = append(r.Admitted, admitted), append(r.Refused, refused)
	}
	slices.Sort(r.Admitted)
	slices.Sort(r.Refused)
	return r, nil
}

// longest limits how long a change may take: three times what the gateway promises by default.
const longest = 30 * time.Second

func (b *bed) revoke(ctx context.Context, name string) (admitted, refused time.Duration, err error) {
	identity, err := b.pki.NewClient(name)
	if err != nil {
		return 0, 0, err
	}
	c := b.calls()
	c.Identities, c.Connections = append(c.Identities[:0:0], identity), 1
	if err := b.register(ctx, name); err != nil {
		return 0, 0, err
	}
	began := time.Now()
	crowd, failed, err := load.Open(ctx, c)
	if err != nil {
		return 0, 0, err
	}
	defer crowd.Close()
	if err := await(ctx, name+" is admitted", longest, func() (bool, error) {
		if len(failed) > 0 {
			failed = crowd.Call(ctx)
		}
		return len(failed) == 0, ctx.Err()
	}); err != nil {
		return 0, 0, fmt.Errorf("%w: %v", err, failed)
	}
	admitted = time.Since(began)

	if err := b.unregister(ctx, name); err != nil {
		return 0, 0, err
	}
	began = time.Now()
	for time.Since(began) < longest && ctx.Err() == nil {
		switch failed = crowd.Call(ctx); {
		case len(failed) == 0:
		case failed["status 401"].Count+failed["status 403"].Count == 1:
			return admitted, time.Since(began), nil
		default:
			return 0, 0, fmt.Errorf("%s is to be refused: %v", name, failed)
		}
	}
	return 0, 0, errors.Join(fmt.Errorf("%s is not refused within %v", name, longest), ctx.Err())
}
