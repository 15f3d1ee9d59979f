//go:build race

package gateway_test

// crosstalkCalls are fewer here: each handshake costs many times more.
const crosstalkCalls = 9_600
