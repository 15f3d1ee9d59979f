package token_test

import (
	"errors"
	"strings"
	"testing"

	"sallyport/policy/token"
)

func TestE77Bearer(t *testing.T) {
	const refused = "\x00"
	for _, c := range []struct {
		name  string
		lines []string
		want  string
	}{
		{"no line", nil, ""},
		{"an empty line", []string{""}, ""},
		{"a token", []string{"Bearer abc"}, "abc"},
		{"lower case", []string{"bearer abc"}, "abc"},
		{"upper case", []string{"BEARER abc"}, "abc"},
		{"several spaces", []string{"Bearer   abc"}, "abc"},
		{"white space around", []string{" \tBearer abc\t "}, "abc"},
		{"every character of a b64token", []string{"Bearer aZ09-._~+/=="}, "aZ09-._~+/=="},
		{"a tab", []string{"Bearer\tabc"}, refused},
		{"space and tab", []string{"Bearer \tabc"}, refused},
		{"no token", []string{"Bearer"}, refused},
		{"no token but a space", []string{"Bearer "}, refused},
		{"only padding", []string{"Bearer =="}, refused},
		{"padding within", []string{"Bearer a=b"}, refused},
		{"two words", []string{"Bearer abc def"}, refused},
		{"quotes", []string{`Bearer "abc"`}, refused},
		{"a colon", []string{"Bearer: abc"}, refused},
		{"an equals sign", []string{"Bearer=abc"}, refused},
		{"not ASCII", []string{"Bearer abcä"}, refused},
		{"a line end", []string{"Bearer abc\r\nX: y"}, refused},
		{"NUL", []string{"Bearer abc\x00"}, refused},
		{"NUL behind the scheme", []string{"Bearer\x00abc"}, refused},
		{"another scheme", []string{"Basic YWxhZGRpbjpvcGVu"}, ""},
		{"a scheme that begins alike", []string{"BearerX abc", "Bearer-Token abc"}, ""},
		{"shorter", []string{"Beare abc"}, ""},
		{"after another scheme", []string{"Basic YWxhZGRpbg==, Bearer abc"}, "abc"},
		{"before another scheme", []string{"Bearer abc,Basic YWxhZGRpbg=="}, "abc"},
		{"after parameters", []string{`Digest username="a", realm="b, Bearer x", Bearer abc`}, "abc"},
		{"in quotes it is no credential", []string{`Digest username="a, Bearer abc"`}, ""},
		{"an escaped quote", []string{`Digest username="a\", Bearer abc"`}, ""},
		{"quotes without end", []string{`Digest username="a, Bearer abc`}, ""},
		{"a backslash at the end", []string{`Digest username="\`}, ""},
		{"empty elements", []string{",, Bearer abc ,,"}, "abc"},
		{"one token twice", []string{"Bearer abc", "bearer  abc"}, "abc"},
		{"one token twice in a line", []string{"Bearer abc, Bearer abc"}, "abc"},
		{"two tokens in two lines", []string{"Bearer abc", "Bearer def"}, refused},
		{"two tokens in a line", []string{"Bearer abc, Bearer def"}, refused},
		{"two that differ in case", []string{"Bearer abc", "Bearer Abc"}, refused},
		{"a good and a malformed one", []string{"Bearer abc", "Bearer"}, refused},
		{"a malformed and a good one", []string{"Bearer a b, Bearer abc"}, refused},
		{"another scheme's line first", []string{"Basic YQ==", "Bearer abc"}, "abc"},
		{"cut before padding", []string{"Bearer abc, ="}, "abc"},
	} {
		t.Run(c.name, func(t *testing.T) {
			raw, err := token.Bearer(c.lines...)
			if c.want == refused {
				if raw != "" || !errors.Is(err, token.ErrInvalid) {
					t.Errorf("Bearer = %q, %v", raw, err)
				}
				if err != nil && strings.Contains(err.Error(), "abc") {
					t.Errorf("the token is told: %v", err)
				}
			} else if raw != c.want || err != nil {
				t.Errorf("Bearer = %q, %v, want %q", raw, err, c.want)
			}
		})
	}
}

func TestWithoutBearer(t *testing.T) {
	for _, c := range []struct{ line, left string }{
		{"", ""},
		{"Bearer abc", ""},
		{" bearer  abc ", ""},
		{"Bearer", ""},
		{"Bearer a b", ""},
		{"Bearer=abc", ""},
		{"BearerX abc", "BearerX abc"},
		{"Basic YQ==", "Basic YQ=="},
		{"Basic YQ==,,Negotiate", "Basic YQ==,,Negotiate"},
		{"Basic YQ==, Bearer abc", "Basic YQ=="},
		{"Bearer abc, Basic YQ==", "Basic YQ=="},
		{"Bearer abc,Basic YQ==,Bearer abc", "Basic YQ=="},
		{"Negotiate, Bearer abc", "Negotiate"},
		{"Bearer abc, Negotiate", "Negotiate"},
		{`Digest username="a, Bearer b", realm="c", Bearer abc`, `Digest username="a, Bearer b", realm="c"`},
		{`Bearer abc, Digest username="a", realm = "c,d"`, `Digest username="a", realm = "c,d"`},
		{`Bearer abc, realm="x", Basic YQ==`, "Basic YQ=="},
		{`Bearer realm="a, Basic b", error = x`, ""},
		{"Bearer abc, =, , \t,", ""},
		{`Digest username="a, Bearer abc`, ""},
		{`Digest username="a\", bearer abc`, ""},
		{`Basic YQ==, Digest username="a", realm="b, Bearer abc`, ""},
		{`Digest username="a, b`, `Digest username="a, b`},
		{`Digest username="Bearer abc", realm="b`, `Digest username="Bearer abc", realm="b`},
		{"Bearer abc" + strings.Repeat(", Basic YQ==", 63), "Basic YQ==" + strings.Repeat(", Basic YQ==", 62)},
		{"Bearer abc" + strings.Repeat(", Basic YQ==", 64), ""},
	} {
		if got := token.WithoutBearer(c.line); got != c.left {
			t.Errorf("%q: %q, want %q", c.line, got, c.left)
		}
	}
}

// FuzzWithoutBearer: whatever is left has no credential of ours any more, and nothing that was not there.
func FuzzWithoutBearer(f *testing.F) {
	for _, s := range []string{"Bearer abc", "Basic x, bearer y", `Digest a="\", Bearer x", Bearer y==`, "Bearer a, b=c, Basic d", `Bearer "`, "Bearer,Bearer a"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		left := token.WithoutBearer(line)
		if raw, err := token.Bearer(left); raw != "" || err != nil && len(left) < len(line) {
			t.Fatalf("%q leaves %q: %q, %v", line, left, raw, err)
		}
		for _, word := range strings.Fields(left) {
			if !strings.Contains(line, strings.TrimSuffix(word, ",")) {
				t.Fatalf("%q leaves %q", line, left)
			}
		}
	})
}

func FuzzBearer(f *testing.F) {
	for _, s := range []string{
		"", "Bearer abc", "bearer  abc, Basic x", `Digest a="\", Bearer x", Bearer y==`, "Bearer a\nBearer b", "Bearer\tx", ",", `"`, `"\`,
	} {
		f.Add(s, "")
		f.Add(s, "Bearer other")
	}
	f.Fuzz(func(t *testing.T, first, second string) {
		raw, err := token.Bearer(first, second)
		if err != nil {
			if raw != "" || !errors.Is(err, token.ErrInvalid) {
				t.Fatalf("Bearer = %q, %v", raw, err)
			}
			return
		}
		if raw == "" {
			return
		}
		if strings.Trim(raw, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/=") != "" || strings.Trim(raw, "=") == "" {
			t.Fatalf("%q is no b64token", raw)
		}
		if !strings.Contains(first, raw) && !strings.Contains(second, raw) {
			t.Fatalf("%q is not in the lines", raw)
		}
		if again, err := token.Bearer("Bearer " + raw); again != raw || err != nil {
			t.Fatalf("again: %q, %v", again, err)
		}
		if _, err := token.Bearer(first, second, "Bearer "+raw+"x"); err == nil {
			t.Fatal("a second, different token is accepted")
		}
	})
}
