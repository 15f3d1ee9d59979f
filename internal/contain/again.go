package contain

import (
	"errors"
	"time"
)

// What has panicked waits for shortPause before it begins anew, and each time for twice as long while it does not run
// for longer than longPause.
const (
	shortPause = 10 * time.Millisecond
	longPause  = time.Second
)

// Again calls do, and anew when it has panicked, until it returns or over is closed. It returns do's error, and nil when
// over was closed after a panic: a Fault is told, and is nobody's error.
func (t *Faults) Again(what string, over <-chan struct{}, do func() error) error {
	defer t.Catch(what, nil)
	pause := shortPause
	for {
		began := time.Now()
		err := t.Do(what, do)
		if fault := (*Fault)(nil); !errors.As(err, &fault) {
			return err
		}
		if time.Since(began) > longPause {
			pause = shortPause
		}
		select {
		case <-over:
			return nil
		case <-time.After(pause):
		}
		pause = min(2*pause, longPause)
	}
}
