//go:build linux

package main_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sallyport/internal/testserver"
	"sallyport/internal/typed"
)

// notTyped are how many blocks of each document may say why they are not typed. More of them are a promise less.
var notTyped = map[string]int{"README.md": 1, "docs/operating.md": 1, "examples/behind-envoy/README.md": 2, "examples/behind-alb/README.md": 1}

// TestDocumentsTyped types what the documents say, as it stands, into a shell in a folder that looks like the repository,
// and compares what is printed with what they show. docs/operating.md goes on where the README ends.
func TestDocumentsTyped(t *testing.T) {
	for _, name := range []string{"bash", "make", "curl", "openssl", "sqlite3", "nginx", "haproxy", "stunnel4"} {
		tool(t, name)
	}
	folders, err := filepath.Glob(filepath.FromSlash(examples + "*"))
	if err != nil || len(folders) < 6 {
		t.Fatal(folders, err)
	}
	journeys := map[string][]string{"README": {"README.md", "docs/operating.md"}}
	for _, folder := range folders {
		name := filepath.Base(folder)
		journeys[name] = []string{"examples/" + name + "/README.md"}
	}
	for name, documents := range journeys {
		t.Run(name, func(t *testing.T) {
			own, err := typed.OwnNetwork()
			if err != nil {
				t.Fatal(err)
			}
			if own { // else the documents share the machine's ports
				t.Parallel()
			}
			typeAll(t, documents)
		})
	}
}

// typeAll types documents one after the other, each in new terminals.
func typeAll(t *testing.T, documents []string) {
	home := t.TempDir()
	likeness := filepath.Join(home, "sallyport")
	if err := os.CopyFS(filepath.Join(likeness, "examples"), os.DirFS(filepath.FromSlash(examples))); err != nil {
		t.Fatal(err)
	}
	if documents[0] != "README.md" { // which makes the quickstart's folder; examples use it again, to save time
		from, err := template()
		if err != nil {
			t.Fatal(err)
		}
		if err := copyFolder(filepath.Join(likeness, "sallyport-quickstart"), from); err != nil {
			t.Fatal(err)
		}
	}
	env := append(os.Environ(), "HOME="+home, "TERM=xterm", "PATH="+withoutProgram(t, home))
	for _, name := range documents {
		document, err := typed.Parse(readDocument(t, name))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if len(document.NotTyped) != notTyped[name] {
			t.Errorf("%s: %d blocks are not typed, and %d may be: %q", name, len(document.NotTyped), notTyped[name], document.NotTyped)
		}
		room := &typed.Room{Dir: likeness, Env: env, Patience: patience}
		err = room.Type(document)
		if closing := room.Close(); closing != nil {
			t.Errorf("%s: %v", name, closing)
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
}

func readDocument(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "..", filepath.FromSlash(name)))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// withoutProgram is a search path on which the program is not found before it is built, and building it takes no time:
// `make build` and `go run` have the test's own.
func withoutProgram(t *testing.T, home string) string {
	t.Helper()
	program, err := exec.LookPath("sallyport")
	if err != nil {
		t.Fatal(err)
	}
	builders := filepath.Join(home, "builders")
	if err := os.Mkdir(builders, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, script := range map[string]string{
		"make": `[ "$*" = build ] && ln -sf '` + program + `' .`,
		"go":   `[ "$1 $2" = 'run ./cmd/sallyport' ] && shift 2 && exec '` + program + `' "$@"`,
	} {
		testserver.Script(t, filepath.Join(builders, name), script)
	}
	path := slices.DeleteFunc(filepath.SplitList(os.Getenv("PATH")), func(dir string) bool { return dir == filepath.Dir(program) })
	return strings.Join(append([]string{builders}, path...), string(filepath.ListSeparator))
}
