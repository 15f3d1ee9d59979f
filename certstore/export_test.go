package certstore

// ParseStored is for the fuzzer: the CERTIFICATE column may be written by others.
var ParseStored = parseStored

// Encrypted reports whether the connection to a server is by TLS, if no caFile says so.
func (u URL) Encrypted() bool { return u.encrypted() }
