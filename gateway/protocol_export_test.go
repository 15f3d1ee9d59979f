package gateway

import (
	"os"
	"time"
)

// Drive has calls of HTTP/1.1 carried by what SALLYPORT_DRIVER says: loops (the default) or goroutines. Both have to answer
// alike.
func (c *Options) Drive() {
	if os.Getenv("SALLYPORT_DRIVER") == "goroutines" {
		c.goroutines = true
	}
}

// Recheck sets how often the right of an open stream is judged though nothing has been swapped.
func (c *Options) Recheck(every time.Duration) { c.recheck = every }

// Rest sets how often the gateway looks for memory to give back.
func (c *Options) Rest(every time.Duration) { c.rest = every }

// Carriers are what carries calls of HTTP/1.1.
var Carriers = map[string]func(*Options){
	"loops":      func(c *Options) { c.goroutines = false },
	"goroutines": func(c *Options) { c.goroutines = true },
}
