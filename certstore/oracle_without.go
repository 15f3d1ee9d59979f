//go:build !oracle

package certstore

const oracleUnbuilt = "Oracle is in programs that are built with: go build -tags oracle ./cmd/sallyport"

func connectOracle(URL, how) (*connection, error) { return nil, invalid("%s", oracleUnbuilt) }

func adviseOracle(err error) error { return err }
