package progress

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestElsewhereThanOnATerminalLinesArePlainAndFew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		l := New(&out)
		l.Pass("at %d", 1)
		time.Sleep(quietPeriod)
		l.Pass("at %d", 2)
		l.Pass("at %d", 3)
		l.Say("done")
		l.Clear()
		if want := "at 2\ndone\n"; out.String() != want {
			t.Errorf("%q, want %q", out.String(), want)
		}
	})
}

func TestOnATerminalTheLineIsRewritten(t *testing.T) {
	var out strings.Builder
	l := New(&out)
	l.terminal = true
	l.Pass("one")
	l.Pass("two")
	l.Say("done")
	l.Clear()
	if want := "\r\x1b[Kone\r\x1b[Ktwo\r\x1b[Kdone\n"; out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
}
