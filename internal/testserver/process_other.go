//go:build !linux

package testserver

import "syscall"

func endWithTests() *syscall.SysProcAttr { return &syscall.SysProcAttr{} }
