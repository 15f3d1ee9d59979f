package main

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestPanicOnTheControlSide: a watch that panics is told of, and begins anew; nothing else ends. Held: security K 146.
func TestPanicOnTheControlSide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told bytes.Buffer
		c := &controller{log: slog.New(slog.NewTextHandler(&told, nil))}
		ctx, cancel := context.WithCancel(t.Context())
		runs := 0
		c.begin(ctx, func(ctx context.Context) error {
			if runs++; runs < 3 {
				panic("a fault of the watch")
			}
			<-ctx.Done()
			return nil
		})
		time.Sleep(3 * watchPause) // of the bubble's clock
		synctest.Wait()
		cancel()
		c.tasks.Wait()
		if runs != 3 {
			t.Errorf("it ran %d times", runs)
		}
		if n := strings.Count(told.String(), "a fault of the watch"); n < 2 {
			t.Errorf("told %d times:\n%s", n, &told)
		}
	})
}
