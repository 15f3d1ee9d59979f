package contain_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"sallyport/internal/contain"
)

// TestCatch: a panic is told once, counted once, and ends what it happened in; without one nothing is ended.
func TestCatch(t *testing.T) {
	var log bytes.Buffer
	var counted []string
	faults := &contain.Faults{
		Log:   slog.New(slog.NewTextHandler(&log, nil)),
		Count: func(where string) { counted = append(counted, where) },
	}
	var ended error
	work := func(do func()) {
		defer faults.Catch("some work", func(f *contain.Fault) { ended = f })
		do()
	}
	work(func() {})
	if ended != nil || log.Len() > 0 {
		t.Errorf("without a panic: %v, %s", ended, &log)
	}
	work(func() { panic("deep down") })
	if ended == nil || ended.Error() != "some work panicked: deep down" {
		t.Errorf("ended by %v", ended)
	}
	again := faults.Do("a caller", func() error { panic(ended) })
	if again != ended {
		t.Errorf("passed on as %v", again)
	}
	if n := strings.Count(log.String(), "msg=\"some work panicked\""); n != 1 || len(counted) != 1 || counted[0] != "some work" {
		t.Errorf("told %d times and counted as %v: %s", n, counted, &log)
	}
	if !strings.Contains(log.String(), "contain_test.TestCatch") {
		t.Errorf("the stack is not that of the panic: %s", &log)
	}
}

// TestCatchWhatPanicsAgain: neither the log, nor the counter, nor what ends the work can make a panic go further.
func TestCatchWhatPanicsAgain(t *testing.T) {
	faults := &contain.Faults{Log: slog.New(panicky{slog.DiscardHandler}), Count: func(string) { panic("in the counter") }}
	ended := false
	func() {
		defer faults.Catch("some work", func(*contain.Fault) {
			ended = true
			panic("in the end")
		})
		panic("in the work")
	}()
	if !ended {
		t.Error("the work was not ended")
	}
}

type panicky struct{ slog.Handler }

func (panicky) Enabled(context.Context, slog.Level) bool { return true }

func (panicky) Handle(context.Context, slog.Record) error { panic("in the log") }

func TestDo(t *testing.T) {
	flaw := errors.New("a flaw")
	if err := contain.Do("some work", func() error { return flaw }); err != flaw {
		t.Errorf("an error: %v", err)
	}
	var fault *contain.Fault
	if err := contain.Do("some work", func() error { panic(flaw) }); !errors.As(err, &fault) || fault.Value != flaw || len(fault.Stack) == 0 {
		t.Errorf("a panic: %v", err)
	}
}
