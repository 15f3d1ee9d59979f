package listenerprofiles

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sallyport/listenerprofiles/keystore"
)

var update = flag.Bool("update", false, "write the golden files anew")

// Each testdata/parse/*.xml has beside it what Parse makes of it: settings, or problems with their places.
func TestParse(t *testing.T) {
	files, err := filepath.Glob("testdata/parse/*.xml")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := describe(parse(filepath.Base(file), data))
			golden := strings.TrimSuffix(file, ".xml") + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Error(diff)
			}
			if strings.Contains(got, "hush") {
				t.Error("a problem shows a password")
			}
		})
	}
}

func describe(profiles []written, err error) string {
	var b strings.Builder
	for _, s := range profiles {
		fmt.Fprintf(&b, "%s, line %d\n", s.Name, s.Line)
		fmt.Fprintf(&b, "\taddress %s%s, server name %q\n", s.BindAddress, s.BindHost, s.ServerName)
		if len(s.Order.Names) > 0 {
			fmt.Fprintf(&b, "\tcertificates of a CA for %q, keys %q\n", s.Order.Names, s.Order.KeyTypes)
		} else {
			fmt.Fprintf(&b, "\tkey store %s, passwords %q %q\n", s.KeyStore, s.KeyStore.Password, s.KeyStore.KeyPassword)
		}
		fmt.Fprintf(&b, "\ttrust store %s, password %q\n", s.TrustStore, s.TrustStore.Password)
		fmt.Fprintf(&b, "\tverify client %s, protocols %x, ciphers %x\n", s.VerifyClient, s.Protocols, s.Ciphers)
		if !reflect.ValueOf(s.Revocation).IsZero() {
			fmt.Fprintf(&b, "\trevocation %+v\n", s.Revocation)
		}
		for _, part := range []Part{
			{"KeyStore", keystore.Password}, {"KeyStore", keystore.KeyPassword}, {"TrustStore", keystore.Password},
		} {
			if alias := s.aliases[part]; alias != "" {
				fmt.Fprintf(&b, "\t%s of %s: secret %s\n", part.Of, part.Element, alias)
			}
		}
		for _, warning := range s.warnings {
			fmt.Fprintf(&b, "\t%s\n", warning)
		}
	}
	if err != nil {
		fmt.Fprintln(&b, err)
	}
	return b.String()
}

func TestParseErrorHasItsPlace(t *testing.T) {
	_, err := Parse("f.xml", []byte("<parameter name=\"SSLProfiles\">\n <profilee/></parameter>"))
	var problem *ParseError
	if !errors.As(err, &problem) {
		t.Fatalf("%T: %v", err, err)
	}
	if problem.File != "f.xml" || problem.Line != 2 || problem.Column != 2 || problem.Element != "profilee" {
		t.Errorf("%+v", problem)
	}
}

// A document must not cost more than its size: depth, elements and problems are bounded.
func TestParseIsBounded(t *testing.T) {
	for name, data := range map[string][]byte{
		"a million deep":      bytes.Repeat([]byte("<a>"), 1_000_000),
		"300,000 deep":        bytes.Repeat([]byte("<a>"), 300_000),
		"250,000 elements":    []byte("<parameter>" + strings.Repeat("<a/>", 250_000) + "</parameter>"),
		"40,000 elements":     []byte(`<parameter name="SSLProfiles">` + strings.Repeat("<a/>", 40_000) + "</parameter>"),
		"a long name":         []byte("<" + strings.Repeat("ä", 400_000) + "/>"),
		"100,000 attributes":  []byte("<parameter" + strings.Repeat(` a=""`, 100_000) + "/>"),
		"a million of blanks": bytes.Repeat([]byte(" "), 1_000_000),
	} {
		settings, err := Parse("f.xml", data)
		if err == nil || settings != nil {
			t.Errorf("%s: no error", name)
		} else if len(err.Error()) > 10_000 {
			t.Errorf("%s: an error of %d bytes", name, len(err.Error()))
		}
	}
}

func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("testdata/parse/*.xml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		settings, err := Parse("f.xml", data)
		if err != nil {
			if settings != nil {
				t.Error("settings beside an error")
			}
			return
		}
		seen := make(map[string]bool)
		for _, s := range settings {
			if seen[s.Name] || s.BindAddress.IsValid() != (s.BindHost == "") || s.BindAddress.Is4In6() || (s.KeyStore == keystore.Ref{}) != (len(s.Order.Names) > 0) || s.Line == 0 {
				t.Errorf("%+v", s)
			}
			seen[s.Name] = true
			if s.VerifyClient != None && s.TrustStore.Location == "" {
				t.Errorf("%s asks for certificates and has no trust store", s.Name)
			}
			if rest := strings.TrimPrefix(s.ServerName, "*."); rest != NormalizeName(rest) {
				t.Errorf("server name %q is not normal", s.ServerName)
			}
		}
	})
}
