//go:build !unix

package listenerprofiles

const openFlags = 0
