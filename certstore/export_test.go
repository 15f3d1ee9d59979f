package certstore

// ParseStored is for the fuzzer: the CERTIFICATE column may be written by others.
var ParseStored = parseStored
