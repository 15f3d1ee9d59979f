//go:build !linux

package testredis

import "syscall"

func endWithTests() *syscall.SysProcAttr { return nil }
