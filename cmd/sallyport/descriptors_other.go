//go:build !unix

package main

// descriptorLimit is how many files and sockets the process may have open; 0 if nobody can tell.
func descriptorLimit() uint64 { return 0 }
