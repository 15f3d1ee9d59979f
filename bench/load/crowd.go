package load

import (
	"context"
	"sync"
)

// A Crowd is kept connections that do nothing until they are called.
type Crowd struct {
	config  Config
	callers []caller
}

// Open makes the connections of c and one call on each. What fails is told, and tried again by Call.
func Open(ctx context.Context, c Config) (*Crowd, Errors, error) {
	c.Workload, c.Duration = Keepalive, 1
	u, err := c.complete()
	if err != nil {
		return nil, nil, err
	}
	crowd := &Crowd{c, newTarget(u, &c).callers(c.Connections * c.Streams)}
	return crowd, crowd.Call(ctx), ctx.Err()
}

// Call makes one call on each connection, 64 at once. A connection that has ended is an error; the next Call makes a new one.
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

// Close ends the connections.
func (c *Crowd) Close() {
	for _, caller := range c.callers {
		caller.close()
	}
}
