package listenerprofiles

import (
	"crypto/tls"
	"slices"
	"strings"
	"testing"
)

// A typo must never switch the demand for certificates off.
func TestParseVerifyClient(t *testing.T) {
	for text, want := range map[string]VerifyClient{
		"": Optional, "optional": Optional, "Optional": Optional, "none": None, "NONE": None, "require": Require, "Require": Require,
	} {
		if got, err := ParseVerifyClient(text); err != nil || got != want {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"requrie", "REQUIRED", "required", "true", "no", " none", "want", "none,require"} {
		if got, err := ParseVerifyClient(text); err == nil || got == None {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	var zero VerifyClient
	if zero != Optional || zero.String() != "optional" || None.String() != "none" || Require.String() != "require" || VerifyClient(9).String() != "VerifyClient(9)" {
		t.Error("the words are mixed up")
	}
	if !(None.strictness() < Optional.strictness() && Optional.strictness() < Require.strictness()) {
		t.Error("the order is mixed up")
	}
}

func TestParseProtocols(t *testing.T) {
	for _, tt := range []struct {
		words string
		want  []uint16
		bad   string
	}{
		{"", nil, ""},
		{"TLSv1.2 TLSv1.3", []uint16{tls.VersionTLS12, tls.VersionTLS13}, ""},
		{"tlsV1.3 TLSV1.2", []uint16{tls.VersionTLS12, tls.VersionTLS13}, ""},
		{"TLSv1.3", []uint16{tls.VersionTLS13}, ""},
		{"TLSv1.2 TLSv1.2", nil, "repeated"},
		{"TLSv1 TLSv1.1 TLSv1.2 TLSv1.3", nil, `"TLSv1" is refused`},
		{"TLSv1.1", nil, "refused"},
		{"SSLv3", nil, "refused"},
		{"SSLv2Hello", nil, "refused"},
		{"TLS", nil, "unknown"},
		{"TLSv1.4", nil, "unknown"},
	} {
		got, err := ParseProtocols(strings.Fields(tt.words))
		if !slices.Equal(got, tt.want) || (err == nil) != (tt.bad == "") || err != nil && !strings.Contains(err.Error(), tt.bad) {
			t.Errorf("%q: %x, %v", tt.words, got, err)
		}
	}
}

func TestParseCiphers(t *testing.T) {
	for _, tt := range []struct {
		names string
		want  []uint16
		bad   string
	}{
		{"", nil, ""},
		{"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}, ""},
		{"tls_ecdhe_rsa_with_aes_128_gcm_sha256", []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}, ""},
		{"TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 TLS_AES_256_GCM_SHA384", []uint16{tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256}, ""},
		{"TLS_AES_128_GCM_SHA256 TLS_EMPTY_RENEGOTIATION_INFO_SCSV", []uint16{}, ""},
		{"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", nil, "repeated"},
		{"TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA", nil, "refused"},
		{"TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256", nil, "refused"},
		{"TLS_RSA_WITH_AES_128_GCM_SHA256", nil, "refused"},
		{"TLS_RSA_WITH_3DES_EDE_CBC_SHA", nil, "refused"},
		{"SSL_RSA_WITH_RC4_128_SHA", nil, "refused"},
		{"TLS_DHE_RSA_WITH_AES_256_GCM_SHA384", nil, "refused"},
		{"ECDHE-RSA-AES128-GCM-SHA256", nil, "unknown"},
		{"HIGH:!aNULL", nil, "unknown"},
	} {
		got, err := ParseCiphers(strings.Fields(tt.names))
		if !slices.Equal(got, tt.want) || (got == nil) != (tt.want == nil) || (err == nil) != (tt.bad == "") || err != nil && !strings.Contains(err.Error(), tt.bad) {
			t.Errorf("%q: %x, %v", tt.names, got, err)
		}
	}
	for _, id := range defaultCiphers {
		if got, err := ParseCiphers([]string{tls.CipherSuiteName(id)}); err != nil || got[0] != id {
			t.Errorf("%s: %x, %v", tls.CipherSuiteName(id), got, err)
		}
	}
}

func TestNormalizeName(t *testing.T) {
	for in, want := range map[string]string{
		"":                  "",
		"api.test":          "api.test",
		"API.Test":          "api.test",
		"api.test.":         "api.test",
		"api.test..":        "api.test.",
		"API.test.:8243":    "api.test",
		"api.test:":         "api.test",
		"10.0.0.1:8243":     "10.0.0.1",
		"[::1]:8243":        "::1",
		"[::1]":             "::1",
		"[::1]x":            "[::1]x",
		"::1":               "::1",
		"api.test ":         "api.test ",
		"\u212Aelvin.test":  "\u212Aelvin.test",
		"Stra\u00DFe.TEST.": "stra\u00DFe.test",
		".":                 "",
		":":                 "",
		"[":                 "[",
	} {
		if got := NormalizeName(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	for _, in := range []string{"api.test", "api.test:8243", "api.test.", "[::1]:8243"} {
		if n := testing.AllocsPerRun(100, func() { NormalizeName(in) }); n != 0 {
			t.Errorf("%q: %v allocations", in, n)
		}
	}
}

func FuzzNormalizeName(f *testing.F) {
	for _, s := range []string{"API.test.:8243", "[::1]:8243", "a:b:c", "..", "[x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := NormalizeName(s)
		if len(got) > len(s) || strings.ContainsAny(got, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") {
			t.Errorf("%q: %q", s, got)
		}
		if name, err := parseServerName(s); err == nil && !strings.HasPrefix(name, "*.") && NormalizeName(s) != name {
			t.Errorf("the element %q means %q, and the client's %q", s, name, NormalizeName(s))
		}
	})
}
