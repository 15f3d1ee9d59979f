package redis

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestStart(t *testing.T) {
	if _, err := Locate(); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	folder := t.TempDir()
	s, err := Start(context.Background(), folder, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := ping(context.Background(), s.Address); err != nil {
		t.Error(err)
	}
	if err := s.Stop(); err != nil {
		t.Error(err)
	}
	if err := ping(context.Background(), s.Address); err == nil {
		t.Error("it answers after its end")
	}
	files, err := os.ReadDir(folder)
	if err != nil || len(files) != 1 || files[0].Name() != "redis.log" {
		t.Errorf("it leaves %v, %v", files, err)
	}
}

func TestAServerThatDoesNotStartIsAnError(t *testing.T) {
	folder := t.TempDir()
	t.Setenv("PATH", folder)
	if _, err := Start(context.Background(), folder, nil); err == nil ||
		!strings.Contains(err.Error(), "apt-get install redis-server") {
		t.Errorf("without a program: %v", err)
	}
	if err := os.WriteFile(filepath.Join(folder, program), []byte("#!/bin/sh\nexit 1\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Start(context.Background(), folder, nil); err == nil ||
		!strings.Contains(err.Error(), "it ended at its start") {
		t.Errorf("a program that ends: %v", err)
	}
}
