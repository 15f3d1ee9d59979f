package contain_test

import (
	"errors"
	"io"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/internal/contain"
)

// TestAgain: what panics begins anew, its own errors are returned, and nothing begins after the end.
func TestAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		faults := &contain.Faults{Log: slog.New(slog.DiscardHandler)}
		runs, over := 0, make(chan struct{})
		err := faults.Again("a task", over, func() error {
			if runs++; runs < 3 {
				panic("in a task")
			}
			return io.EOF
		})
		if !errors.Is(err, io.EOF) || runs != 3 {
			t.Errorf("%v after %d runs", err, runs)
		}
		if err := faults.Again("a task", over, func() error { close(over); panic("at the end") }); err != nil {
			t.Errorf("after the end: %v", err)
		}
	})
}

// TestAgainAndAgain: what panics whenever it begins anew fills no log and takes no CPU, and what panics once in a while
// begins anew at once.
func TestAgainAndAgain(t *testing.T) {
	for _, c := range []struct {
		runs        time.Duration // before each panic
		least, most int           // panics in an hour
	}{{0, 3_600, 4_000}, {10 * time.Second, 359, 360}} {
		synctest.Test(t, func(t *testing.T) {
			panics, over := 0, make(chan struct{})
			faults := &contain.Faults{Log: slog.New(slog.DiscardHandler), Count: func(string) { panics++ }}
			time.AfterFunc(time.Hour, func() { close(over) })
			_ = faults.Again("a task", over, func() error {
				time.Sleep(c.runs)
				panic("again")
			})
			if panics < c.least || panics > c.most {
				t.Errorf("running for %v: %d panics in an hour, want %d to %d", c.runs, panics, c.least, c.most)
			}
		})
	}
}
