package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"testing"
	"testing/synctest"

	"sallyport/internal/contain"
)

// TestGoOn: what panics beside the gateway begins anew; its own errors are returned, and nothing begins after the end.
func TestGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		faults := &contain.Faults{Log: slog.New(slog.DiscardHandler)}
		ctx, stop := context.WithCancel(t.Context())
		runs := 0
		err := goOn(ctx, faults, "a helper", func() error {
			if runs++; runs < 3 {
				panic("in a helper")
			}
			return io.EOF
		})
		if !errors.Is(err, io.EOF) || runs != 3 {
			t.Errorf("%v after %d runs", err, runs)
		}
		err = goOn(ctx, faults, "a helper", func() error { stop(); panic("at the end") })
		if err != nil {
			t.Errorf("after the end: %v", err)
		}
	})
}
