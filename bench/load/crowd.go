package load

import (
	"context"
	"sync"
)

// A Crowd is a set of kept connections that idle between calls.
type Crowd struct {
	config  Config
	callers []caller
}

// Open opens the connections of c and makes one call on each. It returns the failures; Call tries those connections
// again.
func Open(ctx context.Context, c Config) (*Crowd, Errors, error) {
	c.Workload, c.Duration = Keepalive, 1
	u, err := c.complete()
	if err != nil {
		return nil, nil, err
	}
	crowd := &Crowd{c, newTarget(u, &c).callers(c.Connections * c.Streams)}
	return crowd, crowd.Call(ctx), ctx.Err()
}

// Call makes one call on each connection, 64 at a time. A connection that has ended counts as an error, and the next
// Call replaces it.
func (c *Crowd) Call(ctx context.Context) Errors {
	defer context.AfterFunc(ctx, func() {
		for _, caller := range c.callers {
			caller.abort()
		}
	})()
	var errors errorList
	var group sync.WaitGroup
	next := make(chan int)
	for range min(64, len(c.callers)) {
		group.Go(func() {
			for i := range next {
				if err := c.callers[i].call(i, &answer{want: &c.config.Want}); err != nil {
					errors.add(err)
				}
			}
		})
	}
	for i := range c.callers {
		next <- i
	}
	close(next)
	group.Wait()
	return errors.all()
}

// Close closes the connections.
func (c *Crowd) Close() {
	for _, caller := range c.callers {
		caller.close()
	}
}
