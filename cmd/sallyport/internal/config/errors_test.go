package config_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sallyport/cmd/sallyport/internal/config"
	"sallyport/gateway/control"
)

// TestErrors compares all that is said about each bad configuration with what is written beside it.
func TestErrors(t *testing.T) {
	t.Setenv("EMPTY_VARIABLE", "")
	files, err := filepath.Glob("testdata/errors/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal("no test data:", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			c, err := config.Load(file)
			if c != nil || !errors.As(err, new(control.Problems)) {
				t.Fatalf("Load: %v, %v; want Problems alone", c, err)
			}
			if strings.Contains(err.Error(), "canary") {
				t.Error("a message shows a secret")
			}
			if strings.Contains(err.Error()+"\n", ": invalid\n") {
				t.Error("a message ends with a word that says nothing")
			}
			golden(t, strings.TrimSuffix(file, "yaml")+"golden", err.Error()+"\n")
		})
	}
}

// TestWarnings does the same with what is allowed.
func TestWarnings(t *testing.T) {
	files, err := filepath.Glob("testdata/warnings/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal("no test data:", err)
	}
	for _, file := range files {
		c, err := config.Load(file)
		if err != nil {
			t.Error(err)
			continue
		}
		golden(t, strings.TrimSuffix(file, "yaml")+"golden", c.Warnings.Error()+"\n")
	}
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s, -want +got:\n%s", file, diff)
	}
}
