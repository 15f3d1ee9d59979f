package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const repository = "../.."

func readDoc(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(repository, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestPagesNameRealTests holds pages to their word: every test that they cite, as `folder: Test…`, exists.
func TestPagesNameRealTests(t *testing.T) {
	known := map[string]map[string]bool{} // by folder
	for _, page := range []string{"docs/security.md", "docs/certificates.md", "docs/trust.md"} {
		cited := regexp.MustCompile("`([a-z0-9/]+): ((?:Test|Fuzz)[A-Za-z0-9_]+)`").FindAllStringSubmatch(readDoc(t, page), -1)
		if len(cited) == 0 {
			t.Errorf("%s cites no test", page)
		}
		for _, c := range cited {
			folder, name := c[1], c[2]
			if known[folder] == nil {
				known[folder] = testsIn(t, filepath.Join(repository, folder))
			}
			if !known[folder][name] {
				t.Errorf("%s cites %s of %s, which does not exist", page, name, folder)
			}
		}
	}
}

// testsIn names the functions of a folder's test files.
func testsIn(t *testing.T, folder string) map[string]bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, file := range files {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range parsed.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil {
				names[f.Name.Name] = true
			}
		}
	}
	return names
}

// TestDocumentLinks follows the links between the documents.
func TestDocumentLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#: ]+)(?:#[^)]*)?\)`)
	err := filepath.WalkDir(repository, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && path != repository && (ignored(entry.Name()) || entry.Name() == "sallyport-quickstart") {
			return fs.SkipDir
		}
		if filepath.Ext(path) != ".md" {
			return nil
		}
		data, err := os.ReadFile(path)
		for _, l := range link.FindAllStringSubmatch(string(data), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(path), filepath.FromSlash(l[1]))); err != nil {
				t.Errorf("%s links to %s: %v", path, l[1], err)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// ignored holds for folders that are not ours to check.
func ignored(folder string) bool {
	return strings.HasPrefix(folder, ".") || folder == "testdata" || folder == "vendor"
}

// TestReadmeShowsTheExample holds the README against examples/first-api: the same YAML, of less than ten lines, and the
// same commands.
func TestReadmeShowsTheExample(t *testing.T) {
	readme := readDoc(t, "README.md")
	settings := readDoc(t, "examples/first-api/sallyport.yaml")
	if !strings.Contains(readme, "```yaml\n"+settings+"```\n") {
		t.Error("the README's YAML is not that of examples/first-api")
	}
	if n := strings.Count(settings, "\n"); n >= 10 {
		t.Errorf("examples/first-api/sallyport.yaml has %d lines, and the README promises less than ten", n)
	}
	_, commands, _ := strings.Cut(readDoc(t, "examples/first-api/certificates"), "set -eu\n")
	for line := range strings.Lines(commands) {
		if !strings.Contains(readme, "    "+line) {
			t.Errorf("the README lacks the command of examples/first-api/certificates: %s", line)
		}
	}
}

// TestReadmeTellsOfTheFirstBuild: the first command is silent while it compiles, and the sentence before says so.
func TestReadmeTellsOfTheFirstBuild(t *testing.T) {
	before, _, found := strings.Cut(readDoc(t, "README.md"), "```console\n$ go run ./cmd/sallyport quickstart\n")
	paragraphs := strings.Split(strings.TrimSpace(before), "\n\n")
	if last := paragraphs[len(paragraphs)-1]; !found || !strings.Contains(last, "prints nothing") {
		t.Errorf("before the first command it says: %s", last)
	}
}

// TestGoVersionIsOne: whoever is told to install Go is told the version that go.mod demands.
func TestGoVersionIsOne(t *testing.T) {
	version := regexp.MustCompile(`(?m)^go (\S+)$`).FindStringSubmatch(readDoc(t, "go.mod"))
	if version == nil {
		t.Fatal("go.mod names no version")
	}
	for _, file := range []string{"README.md", "CONTRIBUTING.md", "scripts/need"} {
		if want := "Go " + version[1] + " or later"; !strings.Contains(readDoc(t, file), want) {
			t.Errorf("%s does not say %q", file, want)
		}
	}
}
