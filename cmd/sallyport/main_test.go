package main

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"sallyport/cmd/sallyport/internal/quickstart"
)

// folderVariable names the environment variable with the folder that the tests of this package share.
const folderVariable = "SALLYPORT_TEST_FOLDER"

// TestMain makes the test binary the program itself when it is called "sallyport", with the race detector if the tests
// have it; so scripts and tests run the program as a process of its own.
func TestMain(m *testing.M) {
	testscript.Main(withFolder{m}, map[string]func(){
		"sallyport": main,
		"demo":      demo,
	})
}

// demo makes a quickstart's folder and serves nothing.
func demo() {
	_, err := quickstart.Make(context.Background(), quickstart.Options{Dir: os.Args[1]}, registerDemo)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// withFolder runs tests with a folder that is removed after them.
type withFolder struct{ *testing.M }

func (m withFolder) Run() int {
	dir, err := os.MkdirTemp("", "sallyport-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	os.Setenv(folderVariable, dir)
	if os.Getenv("GORACE") == "" {
		// With the race detector a program sleeps a second when it exits; there are hundreds of them here.
		os.Setenv("GORACE", "atexit_sleep_ms=10")
	}
	return m.M.Run()
}
