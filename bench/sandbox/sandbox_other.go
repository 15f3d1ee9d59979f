//go:build !linux

package sandbox

import "os/exec"

// separate does nothing, because there are no network namespaces.
func separate(cmd *exec.Cmd) *exec.Cmd { return cmd }

// Prepare does nothing.
func Prepare() error { return nil }
