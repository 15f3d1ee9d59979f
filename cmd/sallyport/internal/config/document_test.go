package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/goccy/go-yaml/ast"

	"sallyport/gateway/control"
	"sallyport/policy"
)

// TestPositions looks up every key and plain value of the test data where the parser says that it stands.
func TestPositions(t *testing.T) {
	texts := []string{
		"a: [http://127.0.0.1:9000/x, b:c, '''q''', \"\\u00e9\\\"\", d]\n",
		"ä: {é: ü, \"ö\":x, 'k''': v, z: [ä:ö, http://h:1/, ::1, 2]}\nb: \"one\n  two\"\nc: d\n",
		"# c\n\na:\n- b # x\n\n- {c: d} # y\n-   - e\n    - f: g\n      h: |\n        i\n      j: k\nl: m n\np: q\r\nr: s\r\n",
		"\ufeff---\na: \"x\" # y\n'b' : c\n\"d\" :   e\n...\n",
	}
	for _, pattern := range []string{"testdata/*/*.yaml", "testdata/*/*/*.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			texts = append(texts, string(data))
		}
	}
	for _, text := range texts {
		root, err := parseDocument("f", []byte(text))
		if err != nil {
			if text != "" {
				t.Errorf("%q: %v", text, err)
			}
			continue
		}
		lines := strings.Split(strings.TrimPrefix(text, "\ufeff"), "\n")
		ast.Walk(visitor(func(n ast.Node) {
			s, ok := n.(*ast.StringNode)
			if !ok {
				return
			}
			pos, word := tokenPos("f", s.Token), s.Value
			if strings.HasPrefix(word, "one ") || strings.HasSuffix(word, "\n") {
				return // spans lines
			}
			rest := string([]rune(lines[pos.Line-1])[pos.Column-1:])
			if !strings.HasPrefix(rest, word) && !strings.HasPrefix(rest, `"`) && !strings.HasPrefix(rest, "'") {
				t.Errorf("%q is said to be at %v, where there is %q, of\n%s", word, pos, rest, text)
			}
		}), root)
	}
}

type visitor func(ast.Node)

func (v visitor) Visit(n ast.Node) ast.Visitor {
	v(n)
	return v
}

// TestScalars reads one value in the ways in which YAML 1.2 lets it be written. Passwords must come out exactly.
func TestScalars(t *testing.T) {
	for _, c := range []struct{ yaml, want string }{
		{"a", "a"},
		{"a b", "a b"},
		{"pa#ss", "pa#ss"},
		{"pass # comment", "pass"},
		{"p@ss:w0rd!", "p@ss:w0rd!"},
		{"a'b\"c", "a'b\"c"},
		{"-x", "-x"},
		{"$y$", "$y$"},
		{"a\\b", "a\\b"},
		{"a,b]c}", "a,b]c}"},
		{"off", "off"},
		{"2026-01-01", "2026-01-01"},
		{"1.0.0", "1.0.0"},
		{"10m", "10m"},
		{"0.0.0.0:8243", "0.0.0.0:8243"},
		{"'it''s'", "it's"},
		{"' # {}[],: '", " # {}[],: "},
		{`"\"\\\/\t\u00e9\U0001F600\x41\n"`, "\"\\/\té😀A\n"},
		{`"ä€😀"`, "ä€😀"},
		{`"12345"`, "12345"},
		{`"true"`, "true"},
		{`"null"`, "null"},
		{"'~'", "~"},
		{`"*&!|>%@` + "`" + `"`, "*&!|>%@`"},
		{"|-\n  a\n  b", "a\nb"},
		{">-\n  a\n  b", "a b"},
	} {
		for _, text := range []string{"k: " + c.yaml + "\nz: z\n", "l:\n  - k: " + strings.ReplaceAll(c.yaml, "\n", "\n    ") + "\n    z: z\n"} {
			root, err := parseDocument("f", []byte(text))
			if err != nil {
				t.Errorf("%q: %v", text, err)
				continue
			}
			l := &loader{}
			m := newNode(l, &source{name: "f"}, root).mapping("test")
			if values, ok := m.list("l"); ok {
				m = values[0].mapping("test")
			}
			n, _ := m.take("k")
			if got, ok := n.rawText(); !ok || got != c.want {
				t.Errorf("%q is %q (%v), want %q", text, got, ok, c.want)
			}
		}
	}
}

// TestFlowScalars does the same within brackets, where the colon of a URL is no key.
func TestFlowScalars(t *testing.T) {
	for _, c := range []struct{ yaml, want string }{
		{"{k: [http://127.0.0.1:9000]}", "http://127.0.0.1:9000"},
		{"{k: [http://127.0.0.1:9000, x], y: z}", "http://127.0.0.1:9000"},
		{"{y: {k: [https://a.example.com:8443/b:c/d]}}", "https://a.example.com:8443/b:c/d"},
		{"{k: [orders:read:all]}", "orders:read:all"},
		{"{k: [1:2]}", "1:2"},
		{"{k: [::1]}", "::1"},
		{"{k: [x, ::1]}", "x"},
		{"{k: ['a':b]}", ""},
		{"{k: [a: b]}", ""},
		{"[{k: [true:false]}]", "true:false"},
	} {
		root, err := parseDocument("f", []byte("l: "+c.yaml+"\n"))
		if err != nil {
			t.Errorf("%q: %v", c.yaml, err)
			continue
		}
		got := ""
		ast.Walk(visitor(func(n ast.Node) {
			if seq, ok := n.(*ast.SequenceNode); ok && len(seq.Values) > 0 {
				if s, ok := seq.Values[0].(*ast.StringNode); ok {
					got = s.Value
				}
			}
		}), root)
		if got != c.want {
			t.Errorf("%s: first entry %q, want %q", c.yaml, got, c.want)
		}
	}
}

func TestSyntax(t *testing.T) {
	for _, c := range []struct{ name, yaml, want string }{
		{"nothing", "", "f:1:1: the file is empty"},
		{"a comment", "# x\n", "f:1:1: the file is empty"},
		{"two documents", "a: b\n---\nc: d\n", "f:2:1: a second document begins here: keep one document in a file"},
		{"an anchor", "a: &x b\n", "f:1:4: anchors and aliases are not supported: write the value out"},
		{"an alias", "a: *x\n", "f:1:4: anchors and aliases are not supported: write the value out"},
		{"a merge key", "a: b\n<<: {c: d}\n", "f:2:1: merge keys are not supported: write the keys out"},
		{"a tag", "a: !!binary aGk=\n", "f:1:4: tags are not supported: write the value without one"},
		{"a directive", "%YAML 1.2\n---\na: b\n", "f:1:1: directives are not supported: remove the line, or quote the value"},
		{"a question mark key", "? a\n: b\n", `f:1:1: keys with "?" are not supported: write "key: value", or quote the value`},
		{"a tab", "a:\n\tb: c\n", "f:2:1: YAML: found character '\t' that cannot start any token"},
		{"NUL", "a: b\nc: \x00\n", "f:2:4: control character U+0000: remove it"},
		{"a bare CR", "a: b\rc: d\n", "f:1:5: control character U+000D: remove it"},
		{"NEL", "a: b\u0085c: d\n", "f:1:5: control character U+0085: remove it"},
		{"LS", "ä: \u2028\n", "f:1:4: control character U+2028: remove it"},
		{"Latin-1", "a: b\nb: \xe9\n", "f:2:4: a byte that is not UTF-8: save the file as UTF-8"},
		{"UTF-16", "\xff\xfea\x00", "f:1:1: a byte that is not UTF-8: save the file as UTF-8"},
		{"an open quote", "a: b\npassword: 'canary\n", "f:2:11: YAML: could not find end character of single-quoted text"},
		{"a bad escape", "password: \"canary\\q\"\n", `f:1:19: YAML: found unknown escape character: write \\ for a backslash, or use single quotes`},
		{
			"a colon in a password", "password: can: ary\n", "f:1:11: YAML: mapping value is not allowed in this context: " +
				"put a value that holds a colon in quotes, or mend the indentation",
		},
		{"an unquoted reference", "a: {password: ${env:canary}}\n", "f:1:16: YAML: ',' or '}' must be specified"},
		{"an entry indented too far", "a:\n  - b\n   - c: d\n", "f:3:4: the value in the line before goes on here: mend the indentation, or put it in quotes"},
		{"an entry under a value", "a: b\n   - c\n", "f:2:4: the value in the line before goes on here: mend the indentation, or put it in quotes"},
		{"a missing comma", "a: {b: c d: e}\n", "f:1:8: a value without quotes holds a colon before a space: put a comma before the next key, or the value in quotes"},
		{"a stray bracket", "a: {b: c]d, e: f}\n", "f:1:8: a value without quotes holds a bracket: close it, or put the value in quotes"},
		{"a missing bracket", "a: [b, c\nd: e\n", "f:2:1: YAML: ',' or ']' must be specified"},
		{"a reserved character", "a: `b`\n", "f:1:4: YAML: '`' is a reserved character"},
		{"text after quotes", "password: \"can\" ary\n", "f:1:17: YAML: value is not allowed in this context. map key-value is pre-defined"},
		{"too deep in brackets", "a: " + strings.Repeat("[", 100000) + "\n", "f:1:36: more than 32 maps and lists within each other"},
		{"too deep in dashes", strings.Repeat("- ", 100000) + "x\n", "f:1:65: more than 32 maps and lists within each other"},
		{"too deep in lines", deep(100), "f:33:33: more than 32 maps and lists within each other"},
		{"too many keys", strings.Repeat("# c\nk: v\n", 1001), "f:2002:1: more than 1000 keys in one map"},
		{"too large", "# " + strings.Repeat("x", maxFile), "f: the file is larger than 4 MiB"},
	} {
		t.Run(c.name, func(t *testing.T) {
			root, err := parseDocument("f", []byte(c.yaml))
			if err == nil || err.Error() != c.want {
				t.Errorf("%v, %v; want %s", root, err, c.want)
			}
		})
	}
}

// deep is n maps within each other, each in a line of its own.
func deep(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(strings.Repeat(" ", i) + "k:\n")
	}
	return b.String()
}

// FuzzParse reads any bytes as the main file and as an API file. It must come back, with a Config or with Problems that
// stand inside the file and show no secret.
func FuzzParse(f *testing.F) {
	for _, pattern := range []string{"testdata/*/*.yaml", "testdata/*/*/*.yaml"} {
		files, err := filepath.Glob(pattern)
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
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		o := outside{
			readFile: func(path string, _ int64) ([]byte, error) {
				switch {
				case strings.HasSuffix(path, ".yaml"):
					return data, nil
				case strings.HasSuffix(path, ".crt"):
					return []byte("certificate"), nil
				case strings.Contains(path, "secret"):
					return []byte("CANARY-1\n"), nil
				}
				return nil, fs.ErrNotExist
			},
			glob: func(pattern string) ([]string, error) {
				_, err := filepath.Match(pattern, "")
				return []string{"/etc/x/apis/a.yaml"}, err
			},
			lookupEnv: func(string) (string, bool) { return "CANARY-2", true },
		}
		x := &source{name: "x.yaml", path: "/etc/x/x.yaml"}
		c, err := newLoader(x, data, o).load(x, data)
		switch problems := (control.Problems{}); {
		case err == nil:
			if len(c.Listeners) == 0 {
				t.Error("a good configuration has a listener")
			}
			if n := c.Limits; n.ConnectionsPerSource < 1 || n.ConnectionsPerSource > n.Connections || n.Handshakes < 1 || n.HeaderLines < 1 || n.BodyRate < 0 || n.CertificateBytes < 1<<10 || n.Certificates < 1 || n.CertificateKeyBits < 2048 {
				t.Errorf("a good configuration has its limits: %+v", n)
			}
			for _, api := range c.APIs {
				if api.Security == (policy.Security{}) || len(api.Words) == 0 || len(api.Listeners) == 0 || len(api.Upstream.URLs) == 0 || api.Context == "" {
					t.Errorf("a good API says who may call it and where it is: %+v", api)
				}
				if u := api.Upstream; u.MaxCalls < 1 || api.MaxBody < 0 || api.MaxBody > maxSize {
					t.Errorf("a good API has its limits: %+v", api)
				}
			}
		case !errors.As(err, &problems) || c != nil || len(problems) == 0:
			t.Errorf("%v, %v: want Problems alone", c, err)
		default:
			lines := strings.Count(string(data), "\n") + 1
			for _, p := range problems {
				if p.Line > lines || p.Message == "" || strings.Contains(p.Message, "CANARY-") && !strings.Contains(string(data), "CANARY") {
					t.Errorf("%v: %d lines", p, lines)
				}
			}
		}
	})
}
