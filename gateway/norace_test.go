//go:build !race

package gateway_test

const crosstalkCalls = 200_000
