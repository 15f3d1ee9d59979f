package secret_test

import (
	"io/fs"
	"slices"
	"strings"
	"testing"

	"sallyport/internal/secret"
)

const large = 64<<10 + 1

var source = secret.Source{
	Env: func(name string) (string, bool) {
		value, set := map[string]string{"INNER": "inner", "_X9": "${file:plain}", "EMPTY": ""}[name]
		return value, set
	},
	File: func(path string) ([]byte, error) {
		content, ok := map[string]string{
			"plain": "secret\n", "windows": "secret\r\n", "two": "secret\n\n", "none": "secret", "nested": "${env:INNER}\n",
			"spaces": " secret \n", "return": "secret\r", "dir/a:b": "colon", "empty": "", "blank": "\n",
			"most": strings.Repeat("x", large-1), "more": strings.Repeat("x", large),
		}[path]
		if !ok {
			return nil, fs.ErrNotExist
		}
		return []byte(content), nil
	},
}

func TestExpand(t *testing.T) {
	for text, want := range map[string]string{
		"": "", "plain": "plain", "$HOME": "$HOME", "$": "$", "a{b}": "a{b}",
		"${env:INNER}": "inner", "a${env:INNER}b${env:INNER}c}": "ainnerbinnerc}",
		"${file:plain}": "secret", "${file:windows}": "secret", "${file:two}": "secret\n", "${file:none}": "secret",
		"${file:spaces}": " secret ", "${file:return}": "secret\r", "${file:dir/a:b}": "colon",
		"${file:nested}": "${env:INNER}", "${env:_X9}": "${file:plain}", "${file:most}": strings.Repeat("x", large-1),
	} {
		if got, err := source.Expand(text); got != want || err != nil {
			t.Errorf("%s: %.80q, %v; want %.80q", text, got, err, want)
		}
	}
}

func TestExpandRefuses(t *testing.T) {
	const form = "a reference is ${env:NAME} or ${file:PATH}"
	for text, want := range map[string]string{
		"${": form, "${}": form, "canary${env:INNER": form, "${canary}": form, "${env:}": form, "${file:}": form, "${vault:canary}": form,
		"${ENV:INNER}": form, "${env:NOT A NAME}": form, "${env:9X}": form, "${env:é}": form, "${env:${env:INNER}}": form,
		"${env:UNSET}": "variable UNSET is not set", "${env:EMPTY}": "variable EMPTY is not set, or empty",
		"${file:nowhere}": `secret file "nowhere": file does not exist`, "${file:empty}": `secret file "empty" is empty`,
		"${file:blank}": `secret file "blank" is empty`, "${file:more}": `secret file "more": larger than 65536 bytes`,
		"canary ${env:INNER} ${file:nowhere}": `secret file "nowhere"`,
	} {
		got, err := source.Expand(text)
		if got != "" || err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "canary") || strings.Contains(err.Error(), "inner") {
			t.Errorf("%s: %q, %v; want %q", text, got, err, want)
		}
	}
}

func TestFiles(t *testing.T) {
	if got, err := secret.Files("a${file:nowhere}${env:UNSET}${file:../x}"); !slices.Equal(got, []string{"nowhere", "../x"}) || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := secret.Files("${nothing}"); err == nil {
		t.Error("a malformed reference is not an error")
	}
}

func FuzzExpand(f *testing.F) {
	for _, text := range []string{"a${env:INNER}b", "${file:plain}", "${", "${file:more}"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := source.Expand(text)
		if err == nil && !strings.Contains(text, "${") && got != text {
			t.Errorf("%q became %q", text, got)
		}
		if _, formed := secret.Files(text); formed != nil && err == nil {
			t.Errorf("%q is malformed and was expanded", text)
		}
	})
}
