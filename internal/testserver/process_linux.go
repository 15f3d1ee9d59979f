package testserver

import "syscall"

// endWithTests has the kernel kill a program when the tests die without ending it.
func endWithTests() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
