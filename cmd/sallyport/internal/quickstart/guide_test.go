package quickstart_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sallyport/cmd/sallyport/internal/quickstart"
)

func TestGuide(t *testing.T) {
	golden, err := filepath.Abs(filepath.Join("testdata", "guide.golden"))
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	var guide strings.Builder
	makeDemo(t, "", 0).Guide(&guide)
	guide.WriteString("\n---- the second run, with other ports and a name to be quoted\n\n")
	if err := os.Rename(quickstart.DefaultDir, "Sally's port"); err != nil {
		t.Fatal(err)
	}
	makeDemo(t, "Sally's port", 10).Guide(&guide)

	if *update {
		if err := os.MkdirAll(filepath.Dir(golden), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(golden, []byte(guide.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if guide.String() != string(want) {
		t.Errorf("the guide reads (-update if it should):\n%s", &guide)
	}
}

// TestCommandsWorkWhenPasted runs the commands in a real shell, with a curl that prints its arguments.
func TestCommandsWorkWhenPasted(t *testing.T) {
	for _, dir := range []string{"demo", "it's a \"$HOME\" `demo` \\ * (1)", "-demo", "a:b"} {
		t.Run(dir, func(t *testing.T) {
			t.Chdir(t.TempDir())
			d := makeDemo(t, dir, 0)
			commands := d.Commands()
			if len(commands) > 12 {
				t.Errorf("%d commands are too many to read", len(commands))
			}
			for _, c := range commands {
				if strings.ContainsAny(c.Shows, "'\"`$!()[]{}*?;&|<>\\") {
					t.Errorf("%q may not be pasted", c.Shows)
				}
				out, err := exec.CommandContext(t.Context(), "sh", "-euc", `curl() { for a; do printf '%s\n' "$a"; done; }; `+c.Line).CombinedOutput()
				if err != nil {
					t.Fatalf("%s: %v\n%s", c.Line, err, out)
				}
				words := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
				for i, word := range words {
					switch word {
					case "--cert":
						word := strings.NewReplacer(`\\`, `\`, `\:`, ":").Replace(words[i+1])
						if _, err := os.Stat(word); err != nil {
							t.Error(err)
						}
					case "--cacert", "--key":
						if _, err := os.Stat(words[i+1]); err != nil || strings.HasPrefix(words[i+1], "-") {
							t.Errorf("%s: %v", words[i+1], err)
						}
					case "-H":
						tokens := []string{"Authorization: Bearer " + line(t, dir, "tokens/valid.jwt"), "Authorization: Bearer " + line(t, dir, "tokens/forged.jwt")}
						if !slices.Contains(tokens, words[i+1]) {
							t.Errorf("%s gives the header %q", c.Line, words[i+1])
						}
					}
				}
				if last := words[len(words)-1]; !strings.HasPrefix(last, "https://localhost:8243/") {
					t.Errorf("%s calls %s", c.Line, last)
				}
			}
		})
	}
}

func ExampleMake() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	demo, err := quickstart.Make(context.Background(), quickstart.Options{Dir: filepath.Join(dir, "demo")}, new(recorder).register)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(demo.Ports.HTTPS, len(demo.Commands()), demo.Reused)
	// Output: 8243 12 false
}
