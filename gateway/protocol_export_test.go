package gateway

import "time"

// Recheck sets how often the right of an open stream is judged though nothing has been swapped.
func (c *Config) Recheck(every time.Duration) { c.timing.recheck = every }
