package trial

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sallyport/bench/load"
	"sallyport/bench/peer"
)

// An IdleResult is the gateway's memory with and without idle connections.
type IdleResult struct {
	Connections   int
	Without, With int64 // bytes of the gateway
}

// Each returns the bytes that one connection takes.
func (r IdleResult) Each() float64 { return float64(r.With-r.Without) / float64(r.Connections) }

// Idle opens n mTLS connections, makes calls on each, lets them rest, and reads the gateway's memory. Without is the
// memory after the same procedure with one connection. Idle fails if a connection has ended meanwhile.
func Idle(ctx context.Context, s Setup, p peer.Program, n int, settle time.Duration) (r IdleResult, err error) {
	b, err := s.open(ctx, p, false)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, b.close()) }()

	c := b.calls()
	if r.Without, err = b.rested(ctx, c, 1, settle); err != nil {
		return r, err
	}
	r.Connections = n
	r.With, err = b.rested(ctx, c, n, settle)
	return r, err
}

// rested returns the gateway's memory after n connections have rested.
func (b *bed) rested(ctx context.Context, c load.Config, n int, settle time.Duration) (int64, error) {
	c.Connections = n
	b.Progress.Pass("%s: opening %d connections", b.gateway.Title, n)
	crowd, failed, err := load.Open(ctx, c)
	if err != nil {
		return 0, err
	}
	defer crowd.Close()
	if len(failed) == 0 {
		// Opening takes a while: another call on each lets all begin to rest together.
		failed = crowd.Call(ctx)
	}
	if len(failed) > 0 {
		return 0, fmt.Errorf("opening %d connections: %v", n, failed)
	}
	if err := b.rest(ctx, fmt.Sprintf("with %d connections", n), settle, nil); err != nil {
		return 0, err
	}
	memory, err := b.gateway.Memory()
	if err != nil {
		return 0, err
	}
	if failed := crowd.Call(ctx); len(failed) > 0 {
		return 0, fmt.Errorf("%d of %d connections ended within %v "+
			"(a gateway that closes idle ones needs a shorter rest): %v",
			failed.Total(), n, settle, failed)
	}
	return memory, nil
}

// rest leaves the gateway alone for d, except for what is done each second; nil: nothing.
func (b *bed) rest(ctx context.Context, state string, d time.Duration, each func() error) error {
	for end := time.Now().Add(d); time.Now().Before(end); {
		b.Progress.Pass("%s %s rests for %v", b.gateway.Title, state, time.Until(end).Round(time.Second))
		if !pause(ctx, min(time.Second, time.Until(end))) {
			return ctx.Err()
		}
		if each == nil {
			continue
		}
		if err := each(); err != nil {
			return err
		}
	}
	return nil
}
