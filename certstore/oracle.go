package certstore

// oracleDialect reads WSO2's database in Oracle. Its driver is in programs that are built with the tag oracle.
var oracleDialect = &dialect{
	prefixes: []string{"oracle://"},
	form:     "oracle://USER@HOST:PORT/SERVICE",
	port:     "1521",
	unbuilt:  oracleUnbuilt,
	tls:      tlsWords{key: "ssl", verify: "true", plain: "false"},
	// A user who only reads has synonyms or views of the owner's tables.
	tables: `SELECT TABLE_NAME FROM USER_TABLES UNION SELECT VIEW_NAME FROM USER_VIEWS
		UNION SELECT SYNONYM_NAME FROM USER_SYNONYMS`,
	connect:   connectOracle,
	statement: func(query string) string { return numbered(query, ":") },
	advise:    adviseOracle,
}
