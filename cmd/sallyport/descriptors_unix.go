//go:build unix

package main

import "syscall"

// descriptorLimit is how many files and sockets the process may have open; 0 if nobody can tell.
func descriptorLimit() uint64 {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil {
		return 0
	}
	return uint64(limit.Cur)
}
