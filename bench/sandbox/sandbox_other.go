//go:build !linux

package sandbox

import "os/exec"

// separate is of no use here: there are no network namespaces.
func separate(cmd *exec.Cmd) *exec.Cmd { return cmd }

// Prepare has nothing to prepare here.
func Prepare() error { return nil }
