package printable_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode"

	"sallyport/internal/printable"
)

// nasty is text that others may choose, and how a person gets to see it.
var nasty = []struct{ name, text, want string }{
	{"plain", "Größe \"1\" \\ 日本語", "Größe \"1\" \\ 日本語"},
	{"a colour", "a\x1b[31mb", `a\u001b[31mb`},
	{"a second line", "a\nlevel=INFO b\r\n", `a\u000alevel=INFO b\u000d\u000a`},
	{"a tab, NUL, DEL", "a\t\x00\x7f", `a\u0009\u0000\u007f`},
	{"C1", "a\u009b31mb\u0085", `a\u009b31mb\u0085`},
	{"bidi", "a\u202eb\u2066c\u2069\u200f\u061c", `a\u202eb\u2066c\u2069\u200f\u061c`},
	{"no width", "a\u200bb\u200d\u2060\ufeff\u00ad", `a\u200bb\u200d\u2060\ufeff\u00ad`},
	{"separators", "a\u2028b\u2029\u00a0", `a\u2028b\u2029\u00a0`},
	{"tags", "a\U000e0041", `a\udb40\udc41`},
	{"no UTF-8", "a\xffb\xc3", `a\ufffdb\ufffd`},
}

func TestText(t *testing.T) {
	for _, tt := range nasty {
		if got := printable.Text(tt.text); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
		var back string
		quoted := `"` + string(printable.AppendJSON(nil, tt.text)) + `"`
		if err := json.Unmarshal([]byte(quoted), &back); err != nil || back != strings.ToValidUTF8(tt.text, "\ufffd") {
			t.Errorf("%s: as JSON %s, which is %q, %v", tt.name, quoted, back, err)
		}
		for _, r := range quoted + printable.Quote(tt.text) {
			if !unicode.IsPrint(r) {
				t.Errorf("%s: %U passes", tt.name, r)
			}
		}
		var out bytes.Buffer
		if n, err := printable.NewWriter(&out).Write([]byte(tt.text)); n != len(tt.text) || err != nil {
			t.Errorf("%s: wrote %d, %v", tt.name, n, err)
		}
		if got := strings.NewReplacer("\n", `\u000a`, "\t", `\u0009`).Replace(out.String()); got != tt.want {
			t.Errorf("%s: written as %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestQuote(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"a\"b", `"a\"b"`},
		{strings.Repeat("x", 64), `"` + strings.Repeat("x", 64) + `"`},
		{strings.Repeat("x", 63) + "é", `"` + strings.Repeat("x", 63) + `"…`},
	} {
		if got := printable.Quote(tt.text); got != tt.want {
			t.Errorf("%q, want %q", got, tt.want)
		}
	}
}
