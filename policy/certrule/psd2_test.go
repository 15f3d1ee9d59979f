package certrule

import (
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/cryptobyte"
	tags "golang.org/x/crypto/cryptobyte/asn1"
)

// element is DER of that tag and content.
func element(tag tags.Tag, parts ...[]byte) []byte {
	var b cryptobyte.Builder
	b.AddASN1(tag, func(b *cryptobyte.Builder) { b.AddBytes(slices.Concat(parts...)) })
	return b.BytesOrPanic()
}

func oidElement(last ...byte) []byte { // below 0.4.0.19495
	return element(tags.OBJECT_IDENTIFIER, []byte{0x04, 0x00, 0x81, 0x98, 0x27}, last)
}

func role(last byte, name string) []byte {
	return element(tags.SEQUENCE, oidElement(1, last), element(tags.UTF8String, []byte(name)))
}

func psd2Type(roles ...[]byte) []byte {
	return element(tags.SEQUENCE, element(tags.SEQUENCE, roles...), element(tags.UTF8String, []byte("BaFin")), element(tags.UTF8String, []byte("DE-BAFIN")))
}

func statements(list ...[]byte) []byte { return element(tags.SEQUENCE, list...) }

func statement(info ...[]byte) []byte {
	return element(tags.SEQUENCE, append([][]byte{oidElement(2)}, info...)...)
}

func TestPSD2Roles(t *testing.T) {
	other := element(tags.SEQUENCE, element(tags.OBJECT_IDENTIFIER, []byte{0x04, 0x00, 0x8e, 0x46, 0x01, 0x01})) // QcCompliance
	as, pi, ai, ic := role(1, "PSP_AS"), role(2, "PSP_PI"), role(3, "PSP_AI"), role(4, "PSP_IC")
	all := statements(other, statement(psd2Type(as, pi, ai, ic)))
	utf := func(s string) []byte { return element(tags.UTF8String, []byte(s)) }
	for _, tt := range []struct {
		name string
		der  []byte
		want []string
	}{
		{"all four", all, []string{"PSP_AS", "PSP_PI", "PSP_AI", "PSP_IC"}},
		{"one", statements(statement(psd2Type(ai))), []string{"PSP_AI"}},
		{"another statement alone", statements(other), nil},
		{"no statement", statements(), nil},
		{"nothing", nil, nil},
		{"no role", statements(statement(psd2Type())), nil},
		{"another role's name", statements(statement(psd2Type(role(3, "PSP_PI")))), nil},
		{"another role's name beside a good one", statements(statement(psd2Type(as, role(3, "PSP_PI")))), nil},
		{"a name in lower case", statements(statement(psd2Type(role(3, "psp_ai")))), nil},
		{"a name with more", statements(statement(psd2Type(role(3, "PSP_AI ")))), nil},
		{"a role beyond the four", statements(statement(psd2Type(as, role(5, "PSP_XX")))), nil},
		{"a role that is unspecified", statements(statement(psd2Type(role(0, "Unspecified")))), nil},
		{"a role twice", statements(statement(psd2Type(as, as))), nil},
		{"two statements", statements(statement(psd2Type(as)), statement(psd2Type(pi))), nil},
		{"the same statement twice", statements(statement(psd2Type(as)), statement(psd2Type(as))), nil},
		{"a statement without information", statements(statement()), nil},
		{"information twice", statements(statement(psd2Type(as), psd2Type(pi))), nil},
		{"without the authority", statements(statement(element(tags.SEQUENCE, element(tags.SEQUENCE, as)))), nil},
		{"without its identifier", statements(statement(element(tags.SEQUENCE, element(tags.SEQUENCE, as), utf("BaFin")))), nil},
		{"more behind the identifier", statements(statement(element(tags.SEQUENCE, element(tags.SEQUENCE, as), utf("BaFin"), utf("DE-BAFIN"), utf("x")))), nil},
		{"an authority of 257 characters", statements(statement(element(tags.SEQUENCE, element(tags.SEQUENCE, as), utf(strings.Repeat("a", 257)), utf("DE-BAFIN")))), nil},
		{"an authority in another type", statements(statement(element(tags.SEQUENCE, element(tags.SEQUENCE, as), element(tags.PrintableString, []byte("BaFin")), utf("DE-BAFIN")))), nil},
		{"a name in another type", statements(statement(psd2Type(element(tags.SEQUENCE, oidElement(1, 1), element(tags.PrintableString, []byte("PSP AS")))))), nil},
		{"a role with more", statements(statement(psd2Type(element(tags.SEQUENCE, oidElement(1, 1), utf("PSP_AS"), utf("x"))))), nil},
		{"all roles in one pair", statements(statement(psd2Type(element(tags.SEQUENCE, oidElement(1, 1), utf("PSP_AS"), oidElement(1, 2), utf("PSP_PI"))))), nil},
		{"a role in a set", statements(statement(psd2Type(element(tags.SET, oidElement(1, 1), utf("PSP_AS"))))), nil},
		{"an identifier with a leading zero octet", statements(statement(psd2Type(element(tags.SEQUENCE, oidElement(1, 0x80, 1), utf("PSP_AS"))))), nil},
		{"something behind the end", append(slices.Clone(all), 0), nil},
		{"another statement with more", statements(element(tags.SEQUENCE, oidElement(9), utf("a"), utf("b")), statement(psd2Type(as))), nil},
		{"something that is no statement", statements(utf("a"), statement(psd2Type(as))), nil},
		{"too many statements", statements(append(slices.Repeat([][]byte{other}, maxStatements), statement(psd2Type(as)))...), nil},
		{"too long", statements(statement(psd2Type(as)), element(tags.SEQUENCE, oidElement(9), utf(strings.Repeat("a", maxExtension)))), nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := parsePSD2Roles(tt.der); !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	for i := range all {
		if got := parsePSD2Roles(all[:i]); got != nil {
			t.Errorf("cut to %d bytes it has %q", i, got)
		}
	}
}

func FuzzPSD2(f *testing.F) {
	f.Add(statements(statement(psd2Type(role(1, "PSP_AS"), role(2, "PSP_PI")))))
	for _, e := range partner(f).Extensions {
		f.Add(e.Value)
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		roles := parsePSD2Roles(der)
		for i, role := range roles {
			if CheckRole("psd2Roles", role) != nil || slices.Contains(roles[:i], role) {
				t.Errorf("%q", roles)
			}
		}
	})
}
