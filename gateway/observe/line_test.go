package observe

import (
	"encoding/json"
	"log/slog"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode"
)

// FuzzLine: a text of any kind comes out of a line of JSON as it went in, but for what is no UTF-8, and out of a line of
// text as slog writes it; and neither holds what a terminal would not print.
func FuzzLine(f *testing.F) {
	for _, s := range []string{"a", "a b", `a"b\c`, "a=b", "\x00\r\n\x1b[31m", "\x7f\u009b", "é\u202e\u2028\U0001f600\U000e0001", "\xff\xc3", "\ufffd", " "} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if s == "" || len(s) > maxText {
			return
		}
		now := time.Date(2026, 3, 1, 12, 0, 0, 120_000_000, time.UTC)
		w := new(line)
		w.begin(false, now)
		w.key = key("path", false)
		w.str(s)
		w.end()
		var got struct {
			Time             time.Time
			Level, Msg, Path string
		}
		if err := json.Unmarshal(w.b, &got); err != nil {
			t.Fatalf("%q: %v", w.b, err)
		}
		want := new(strings.Builder)
		for _, r := range s { // each byte that is no UTF-8 is one replacement
			want.WriteRune(r)
		}
		if got.Path != want.String() || got.Level != "INFO" || got.Msg != "call" || !got.Time.Equal(now) {
			t.Errorf("%q became %+v", s, got)
		}
		showable(t, w.b)

		w.begin(true, now)
		w.key = key("path", true)
		w.str(s)
		w.end()
		var text strings.Builder
		h := slog.NewTextHandler(&text, nil)
		r := slog.NewRecord(now, slog.LevelInfo, "call", 0)
		r.AddAttrs(slog.String("path", s))
		if err := h.Handle(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		if string(w.b) != text.String() && !strings.Contains(s, "\x7f") { // which slog lets through
			t.Errorf("%q became\n%q, want\n%q", s, w.b, text.String())
		}
		showable(t, w.b)
	})
}

func showable(t *testing.T, b []byte) {
	t.Helper()
	for _, r := range strings.TrimSuffix(string(b), "\n") {
		if !unicode.IsPrint(r) {
			t.Errorf("%q is in %q", r, b)
		}
	}
}

// TestMilliseconds: a time reads as Go writes the number.
func TestMilliseconds(t *testing.T) {
	for us := range int64(20_000) {
		for _, us := range []int64{us, us * 997, us * 1000} {
			w := new(line)
			w.milliseconds(time.Duration(us) * time.Microsecond)
			if want := strconv.FormatFloat(float64(us)/1000, 'f', -1, 64); string(w.b) != want {
				t.Fatalf("%d µs became %s, want %s", us, w.b, want)
			}
		}
	}
}
