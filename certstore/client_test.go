package certstore_test

import (
	"errors"
	"strings"
	"testing"

	"sallyport/certstore"
	"sallyport/certstore/certstoretest"
)

func TestParseAPI(t *testing.T) {
	tests := []struct {
		in   string
		want certstore.API // zero: an error
	}{
		{"orders:1.0.0", certstore.API{Name: "orders", Version: "1.0.0"}},
		{"urn:orders:1", certstore.API{Name: "urn:orders", Version: "1"}},
		{`it's $1 "50%" 🚪:v1`, certstore.API{Name: `it's $1 "50%" 🚪`, Version: "v1"}},
		{"", certstore.API{}},
		{"orders", certstore.API{}},
		{"orders:", certstore.API{}},
		{":1.0.0", certstore.API{}},
		{":", certstore.API{}},
		{"or\nders:1", certstore.API{}},
		{"orders: 1", certstore.API{}},
		{" orders:1", certstore.API{}},
		{"orders\xff:1", certstore.API{}},
		{strings.Repeat("n", 201) + ":1", certstore.API{}},
		{"orders:" + strings.Repeat("1", 31), certstore.API{}},
	}
	for _, test := range tests {
		got, err := certstore.ParseAPI(test.in)
		if got != test.want {
			t.Errorf("ParseAPI(%q) = %v, %v; want %v", test.in, got, err, test.want)
		}
		if refused := test.want == (certstore.API{}); refused != errors.Is(err, certstore.ErrInvalid) {
			t.Errorf("ParseAPI(%q): error %v", test.in, err)
		}
	}
}

func FuzzParseAPI(f *testing.F) {
	f.Add("orders:1.0.0")
	f.Add("a:b:c")
	f.Fuzz(func(t *testing.T, s string) {
		api, err := certstore.ParseAPI(s)
		if err == nil && api.String() != s {
			t.Errorf("%q became %q", s, api)
		}
	})
}

func TestParseKeyType(t *testing.T) {
	for in, want := range map[string]certstore.KeyType{
		"PRODUCTION": certstore.Production, "production": certstore.Production,
		"SANDBOX": certstore.Sandbox, "Sandbox": certstore.Sandbox,
		"": "", "PROD": "", "SANDBOX ": "", "ſandbox": "", "BOTH": "",
	} {
		got, err := certstore.ParseKeyType(in)
		if got != want || (want == "") != errors.Is(err, certstore.ErrInvalid) {
			t.Errorf("ParseKeyType(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
}

func TestCheckAlias(t *testing.T) {
	for _, good := range certstoretest.OddAliases {
		if err := certstore.CheckAlias(good); err != nil {
			t.Errorf("CheckAlias(%q): %v", good, err)
		}
	}
	for _, bad := range []string{
		"", ".", "..", "../../x", "a/b", `a\b`, " a", "a ", "a\x00", "a\nb", "\u0085a", "a\x7f", "\xff", "\u00a0a",
		strings.Repeat("a", 46), strings.Repeat("🚪", 46),
	} {
		if err := certstore.CheckAlias(bad); !errors.Is(err, certstore.ErrInvalid) {
			t.Errorf("CheckAlias(%q) = %v; want ErrInvalid", bad, err)
		}
	}
}
