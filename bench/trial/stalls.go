package trial

import (
	"context"
	"time"
)

// stalls is a watch on whether this process gets its turn, as it doesn't on a machine that is busy or stands still.
type stalls struct {
	end     context.CancelFunc
	ended   chan struct{}
	longest time.Duration // valid once ended is closed
}

// blink is how often the watch looks.
const blink = 5 * time.Millisecond

// watchStalls begins to watch. stop must be called.
func watchStalls() *stalls {
	ctx, end := context.WithCancel(context.Background())
	s := &stalls{end: end, ended: make(chan struct{})}
	go func() { // stop waits for it
		defer close(s.ended)
		last := time.Now().Round(0) // by the clock on the wall, which goes on while a machine stands still
		for pause(ctx, blink) {
			now := time.Now().Round(0)
			s.longest = max(s.longest, now.Sub(last)-blink)
			last = now
		}
	}()
	return s
}

// stop ends the watch and returns the longest stall.
func (s *stalls) stop() time.Duration {
	s.end()
	<-s.ended
	return s.longest
}
