package main_test

import (
	"strings"
	"testing"

	"sallyport/certstore"
)

// TestStoreCopyOfValues copies what gateways keep by name, names what stays behind, and shows no content.
func TestStoreCopyOfValues(t *testing.T) {
	d := newDemo(t)
	put := func(file string, values ...string) {
		t.Helper()
		s, err := certstore.Open(t.Context(), "sqlite:"+d.path(file), certstore.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		for i := 0; i < len(values); i += 2 {
			if err := s.PutValue(t.Context(), values[i], []byte(values[i+1])); err != nil {
				t.Fatal(err)
			}
		}
	}
	put("from.db", "acme/cert", "secret 1", "acme/key", "secret 2", "acme/user", "secret 3")
	put("to.db", "acme/cert", "secret 4")
	const left = "left out: the value \"acme/cert\": TO has another one\n"
	for _, step := range []struct {
		args []string
		want string
	}{
		{nil, "copied: 0 registrations, 2 values\n" + left},
		{nil, "copied: 0 registrations\n" + left},
		{[]string{"-o", "json"}, `"values": [` + "\n      \"acme/cert\"\n    ]"},
		{[]string{"-o", "json"}, `"copiedValues": 0,`},
	} {
		code, stdout, stderr := d.run(append([]string{"store", "copy", "sqlite:from.db", "sqlite:to.db"}, step.args...)...)
		if code != 0 || !strings.Contains(stdout, step.want) || strings.Contains(stdout+stderr, "secret") {
			t.Errorf("%v: exit code %d, want %q\n%s%s", step.args, code, step.want, stdout, stderr)
		}
	}
}
