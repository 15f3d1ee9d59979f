//go:build !linux

package load

import "time"

func newClock(every time.Duration) clock { return newTicker(every) }
