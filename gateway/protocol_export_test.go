package gateway

import (
	"os"
	"time"
)

// ByNetHTTP tells whether net/http carries all calls in these tests, rather than the engine those that it can: both have
// to answer alike.
var ByNetHTTP = os.Getenv("SALLYPORT_DRIVER") == "nethttp"

func (c *Config) drive() {
	switch os.Getenv("SALLYPORT_DRIVER") {
	case "nethttp":
		c.driver = driverNetHTTP
	case "goroutines":
		c.driver = driverGoroutines
	}
}

// Drive has calls carried as ByNetHTTP says.
func (c *Config) Drive() { c.drive() }

// Recheck sets how often the right of an open stream is judged though nothing has been swapped.
func (c *Config) Recheck(every time.Duration) { c.timing.recheck = every }
