//go:build !race

package gateway_test

const crosstalkCalls = 19_200
