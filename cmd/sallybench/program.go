package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"sallyport/bench/peer"
)

// findSallyport returns the program to measure: the named one, the one beside this program, or one that it builds from
// the module of the current folder. remove deletes what it has built.
func findSallyport(named string, say io.Writer) (path string, remove func() error, err error) {
	kept := func() error { return nil }
	if named == "" {
		if self, err := os.Executable(); err == nil {
			if beside := filepath.Join(filepath.Dir(self), "sallyport"); isProgram(beside) {
				named = beside
			}
		}
	}
	if named != "" {
		program, err := peer.Kinds[0].Locate(named)
		if err != nil {
			return "", nil, usage(fmt.Errorf("--sallyport: %w", err))
		}
		return program.Path, kept, nil
	}
	module, err := exec.Command("go", "list", "-m").Output()
	if err != nil || string(bytes.TrimSpace(module)) != "sallyport" {
		return "", nil, usage(errors.New("no sallyport program beside this one, " +
			"and the current folder isn't in its module: name one with --sallyport"))
	}
	folder, err := os.MkdirTemp("", "sallybench-program-")
	if err != nil {
		return "", nil, err
	}
	remove = func() error { return os.RemoveAll(folder) }
	fmt.Fprintln(say, "building sallyport")
	path = filepath.Join(folder, "sallyport")
	build := exec.Command("go", "build", "-buildvcs=auto", "-trimpath", "-o", path, "sallyport/cmd/sallyport")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		remove()
		return "", nil, fmt.Errorf("building sallyport: %w\n%s", err, out)
	}
	return path, remove, nil
}

func isProgram(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}
