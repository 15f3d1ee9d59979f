package gateway_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// TestMain gives the process a system root of its own, so that a test can show that nobody is let in by it, and makes
// sure that no goroutine is left at the end.
func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "system-roots")
	if err != nil {
		panic(err)
	}
	roots := filepath.Join(dir, "roots.pem")
	if err := os.WriteFile(roots, certPEM(theSystemRoot()), 0o600); err != nil {
		panic(err)
	}
	os.Setenv("SSL_CERT_FILE", roots)
	os.Setenv("SSL_CERT_DIR", dir)
	code := m.Run()
	for end := time.Now().Add(patience); code == 0; { // goroutines that are ending have all the time that they need
		if err = goleak.Find(); err == nil {
			break
		}
		if time.Now().After(end) {
			fmt.Fprintln(os.Stderr, "goroutines are left:", err)
			code = 1
		}
	}
	os.RemoveAll(dir)
	os.Exit(code)
}
