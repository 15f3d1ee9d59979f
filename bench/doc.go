// Package bench measures gateways: Sallyport beside others, and Sallyport alone under what operations do to it. Its
// folders are the parts; cmd/sallybench is how they are run.
//
//	load        makes calls and times them            backend     answers them behind the gateway
//	histogram   holds times                           pki         makes certificates and tokens
//	process     pins processes and counts their CPU   sandbox     a network of the measurement's own
//	peer        the gateways, each at its best        compare     scenarios, rounds, ratios
//	report      table, JSON, HTML and SVG             trial       soak, idle, reload, revoke
//
// None of them knows the gateway from inside: they use its program and its files, as a user does.
package bench
