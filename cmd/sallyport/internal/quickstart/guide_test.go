package quickstart_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

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
	guide.WriteString("\n---- the second run, with the highest ports and a name to be quoted\n\n")
	if err := os.Rename(quickstart.DefaultDir, "Sally's port"); err != nil {
		t.Fatal(err)
	}
	makeDemo(t, "Sally's port", 56091).Guide(&guide)

	for line := range strings.Lines(guide.String()) {
		if utf8.RuneCountInString(strings.TrimSuffix(line, "\n")) > 80 {
			t.Errorf("wider than 80 columns: %s", line)
		}
	}

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

// TestCommandsWorkWhenPasted runs the commands in a real shell, with a curl that prints its arguments and the files that
// they name.
func TestCommandsWorkWhenPasted(t *testing.T) {
	const curl = `curl() { while [ $# -gt 1 ]; do [ "$1" = -K ] && cat -- "$2"; shift 2; done; printf '%s\n' "$1"; }; `
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
				out, err := exec.CommandContext(t.Context(), "sh", "-euc", d.Enter()+"\n"+curl+c.Line).CombinedOutput()
				if err != nil {
					t.Fatalf("%s: %v\n%s", c.Line, err, out)
				}
				lines := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
				for _, text := range lines {
					switch key, value, _ := strings.Cut(text, " = "); key {
					case "cert", "cacert", "key":
						if _, err := os.Stat(filepath.Join(dir, strings.Trim(value, `"`))); err != nil {
							t.Error(err)
						}
					case "header":
						valid, forged := line(t, dir, "tokens/valid.jwt"), line(t, dir, "tokens/forged.jwt")
						if value != `"Authorization: Bearer `+valid+`"` && value != `"Authorization: Bearer `+forged+`"` {
							t.Errorf("%s gives the header %q", c.Line, value)
						}
					}
				}
				if last := lines[len(lines)-1]; !strings.HasPrefix(last, "https://localhost:8243/") {
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
	defer demo.Close()
	fmt.Println(demo.Ports.HTTPS, len(demo.Commands()), demo.Reused)
	// Output: 8243 12 false
}
