//go:build linux

package typed_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"sallyport/internal/typed"
)

const page = "# A page\n" + `
Say something, and go elsewhere:

    echo not compared
    # a remark
    cd folder && NAME=world

Write this to ` + "`greeting.txt`:\n" + `
` + "```text" + `
hello
` + "```" + `

It is read:

` + "```console" + `
$ cat greeting.txt
hello
$ printf 'one\ntwo\nthree 3 words\n'
one
…
three … words
$ echo "$NAME" \
  again
world again
$ true
$ sh -c 'echo ready; exec sleep 1000'
ready
` + "```" + `

In another terminal:

` + "```console" + `
$ cd folder
$ cat < /dev/tty & sleep 0; kill $!; echo "$NAME"
…
$ false || echo refused
refused
` + "```" + `

Within a moment there is a file:

` + "```console" + `
$ if [ -e b ]; then echo yes; fi; [ ! -e a ] || touch b; touch a
yes
` + "```" + `

<!-- not typed: it is somebody else's -->

    rm -rf /nowhere
`

func parse(t *testing.T, text string) typed.Document {
	t.Helper()
	d, err := typed.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func room(t *testing.T) *typed.Room {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(dir+"/folder", 0o700); err != nil {
		t.Fatal(err)
	}
	r := &typed.Room{Dir: dir, Env: os.Environ(), Patience: time.Minute}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func TestType(t *testing.T) {
	d := parse(t, page)
	if len(d.NotTyped) != 1 || d.NotTyped[0] != "it is somebody else's" {
		t.Errorf("not typed: %q", d.NotTyped)
	}
	if err := room(t).Type(d); err != nil {
		t.Error(err)
	}
}

// TestTypeTells: what is not as shown is told, with its line.
func TestTypeTells(t *testing.T) {
	for text, want := range map[string]string{
		"    false\n":                                                          "line 1: false\nprints (exit code 1)",
		"```console\n$ echo a\nb\n```\n":                                       "line 2: echo a",
		"```console\n$ echo a\n```\n":                                          "line 2: echo a", // which shows nothing
		"```console\n$ echo a; echo b\na\n```\n":                               "line 2: echo a; echo b",
		"```console\n$ echo b; echo a\na\n```\n":                               "line 2: echo b; echo a",
		"```console\n$ false\n```\n":                                           "line 2: false",
		"```console\n$ echo a.c\na…d\n```\n":                                   "line 2: echo a.c",
		"    (exit 7)\n\nIn another terminal:\n\n```console\n$ echo a\nb\n```": "(exit 7)\nhas ended (exit code 7)",
		"```console\n$ exit 3\n…\n```\n":                                       "line 2: exit 3\nends the shell",
		"```console\n$ echo a\nb\n```\nIn another terminal:\n\n    true\n":     "line 2: echo a",
	} {
		err := room(t).Type(parse(t, text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

// TestTypeGivesUp: what is asked for again and again is asked for as long as patience lasts.
func TestTypeGivesUp(t *testing.T) {
	const text = "    sleep 1000\n\nIn another terminal:\n\n```console\n$ echo a\nb\n```"
	r := room(t)
	r.Patience = 300 * time.Millisecond
	err := r.Type(parse(t, text))
	r.Patience = time.Minute
	if err == nil || !strings.Contains(err.Error(), "line 6: echo a") {
		t.Error(err)
	}
}

func TestParseTells(t *testing.T) {
	for text, want := range map[string]string{
		"```yaml\na: b\n```\n":                             `line 2: a block of "yaml" that is no command`,
		"```\nls\n```\n":                                   `line 2: a block of "" that is no command`,
		"```console\nls\n```\n":                            `line 2: "ls" is printed by no command`,
		"```console\n$ ls \\\n```\n":                       "line 2: a block without a command, or with half of one",
		"```sh\n# nothing\n```\n":                          "line 2: a block without a command",
		"```sh\nls\n":                                      "line 2: a code block without an end",
		"<!-- not typed: because -->\n\nText.\n\n    ls\n": "line 2: a note on why a block is not typed, and no block",
		"Text.\n\n<!-- not typed: because -->\n":           "line 3: a note on why a block is not typed, and no block",
		"In another terminal:\n\n    ls\n":                 "line 3: another terminal, but nothing keeps running in the first",
	} {
		if _, err := typed.Parse(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

// TestOwnNetwork: what is served there is reached there, and does not take a port of anybody else's.
func TestOwnNetwork(t *testing.T) {
	switch own, err := typed.OwnNetwork(); {
	case err != nil:
		t.Fatal(err)
	case !own:
		t.Skip("the system allows no network of the test's own")
	}
	const listening = "```console\n$ cat /proc/net/dev | wc -l; cat /proc/net/tcp | wc -l; exec 4<>/dev/tcp/127.0.0.1/9\n3\n1\n…refused\n…\n```\n"
	if err := room(t).Type(parse(t, listening)); err != nil {
		t.Error(err)
	}
}
