package testserver

import (
	"os"
	"syscall"
	"testing"
)

// Script makes a file that is run by /bin/sh. A program that is started meanwhile would have the file open for writing for
// a moment, and so keep it from being run ("text file busy"): none is.
func Script(t testing.TB, path, commands string) {
	t.Helper()
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+commands+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
}
