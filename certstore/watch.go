package certstore

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Version returns a number that is another one each time after the database was changed by this process or any other,
// and may be another one without a change. It means something for this Store only.
func (s *Store) Version(ctx context.Context) (uint64, error) {
	s.look.Lock()
	defer s.look.Unlock()
	err := s.use(ctx, func(conn *connection) error {
		n, err := conn.changes(ctx)
		if err == nil && (conn != s.seen || n != s.count) {
			s.seen, s.count = conn, n
			s.version++
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("look for changes in the store: %w", err)
	}
	return s.version, nil
}

// Watch calls changed at once after each change by this Store and within period after one by another, until ctx ends;
// then it returns nil. What counts is what has changed since the Store was opened, so nothing is missed between Open
// and Watch; a call too many is possible. changed is called by this goroutine, one call after the other.
//
// A change counts as seen when changed returned nil. After an error, which Watch does not report, changed is called
// again after each period, and at each change, until it returns nil: what could not be read at that moment, such as a
// removal, must not stay unknown until the next change.
//
// Several goroutines may Watch one Store; each sees every change.
//
// A database that is locked or away is reported to Options.OnError and looked for again after each period.
// A closed Store is an error.
func (s *Store) Watch(ctx context.Context, period time.Duration, changed func() error) error {
	if period <= 0 {
		return invalid("watch the store: period %v is not positive", period)
	}
	timer := time.NewTicker(period)
	defer timer.Stop()
	seen, failed := s.opened, false
	for {
		wake := s.woken() // before the look, so that a change after it is not slept through
		version, err := s.Version(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, errClosed):
			return fmt.Errorf("watch the store: %w", errClosed)
		case err != nil:
			failed = true
			s.report(err)
		default:
			if failed {
				failed = false
				s.report(nil)
			}
			if version != seen {
				if changed() == nil {
					seen = version
				} else {
					timer.Reset(period) // it may have taken longer than that
				}
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.closed:
		case <-wake:
		case <-timer.C:
		}
	}
}

func (s *Store) report(err error) {
	if s.opts.OnError != nil {
		s.opts.OnError(err)
	}
}

// woken returns a channel that is closed at the next change by this Store.
func (s *Store) woken() <-chan struct{} {
	s.wakeMu.Lock()
	defer s.wakeMu.Unlock()
	return s.wake
}

func (s *Store) rouse() {
	s.wakeMu.Lock()
	defer s.wakeMu.Unlock()
	close(s.wake)
	s.wake = make(chan struct{})
}
