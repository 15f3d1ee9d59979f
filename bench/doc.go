// Package bench measures gateways: Sallyport beside others, and Sallyport alone while it is being operated. Its folders
// are the parts, and cmd/sallybench is the program that runs them.
//
//	load        makes calls and times them            backend     answers them behind the gateway
//	histogram   holds times                           pki         makes certificates and tokens
//	process     pins processes and counts their CPU   sandbox     a network for the measurement alone
//	peer        the gateways, each at its best        compare     scenarios, rounds, ratios
//	report      table, JSON, HTML and SVG             trial       soak, idle, reload, revoke, overshoot
//	redis       a server that limits are counted in
//
// None of them imports the gateway: they use its program and its files, as a user does.
package bench
