package certstore_test

import (
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"sallyport/certstore"
)

// TestStatementsOfOtherServers reads by the statements for servers that can't be had here.
func TestStatementsOfOtherServers(t *testing.T) {
	const columns = `SELECT C."API_ID", A."API_NAME", A."API_VERSION", C."ALIAS", KEYTYPE, C."TIER_NAME", C."REMOVED", C."CERTIFICATE" ` +
		`FROM "AM_API_CLIENT_CERTIFICATE" C LEFT JOIN "AM_API" A ON A."API_ID" = C."API_ID" WHERE C."TENANT_ID" = `
	for _, c := range []struct{ prefix, version, kind, want string }{
		{"sqlserver://", "2.6", "h2", strings.Replace(columns, "KEYTYPE", "'PRODUCTION'", 1) + "@p1"},
		{"sqlserver://", "today", "sqlite", strings.Replace(columns, "KEYTYPE", `C."KEY_TYPE"`, 1) + `@p1 AND C."REVISION_UUID" = @p2`},
		{"oracle://", "2.6", "h2", strings.Replace(columns, "KEYTYPE", "'PRODUCTION'", 1) + ":1"},
		{"oracle://", "today", "sqlite", strings.Replace(columns, "KEYTYPE", `C."KEY_TYPE"`, 1) + `:1 AND C."REVISION_UUID" = :2`},
	} {
		w := (&wso2Database{T: t, version: c.version, raw: rawSQL(t, newFile(t))}).made(c.kind)
		w.insert("acme", me, 7, toPEM(newCertificate(t)), false, "Gold")
		w.insert("gone", me, 7, toPEM(newCertificate(t)), true, "Gold")
		w.insert("theirs", 1, 7, toPEM(newCertificate(t)), false, "Gold")
		aliases, statements, err := certstore.ReadWSO2(t.Context(), w.raw, c.prefix)
		if err != nil || !slices.Equal(aliases, []string{"acme"}) {
			t.Errorf("%s %s: %v, %v", c.prefix, c.version, aliases, err)
		}
		if got := statements[len(statements)-1]; got != c.want {
			t.Errorf("%s %s:\n%s, want\n%s", c.prefix, c.version, got, c.want)
		}
	}
}

// TestSQLServerWithoutTLS: a server, or whoever is between, that has no TLS is told neither user nor password.
func TestSQLServerWithoutTLS(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	heard := make(chan []byte, 10)
	var server sync.WaitGroup
	server.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			head := make([]byte, 8)
			_, _ = io.ReadFull(conn, head)
			_, _ = io.CopyN(io.Discard, conn, int64(head[2])<<8+int64(head[3])-8)
			// A reply to PRELOGIN (MS-TDS 2.2.6.5) with a version, and no encryption.
			options := []byte{0, 0, 11, 0, 6, 1, 0, 17, 0, 1, 0xff, 16, 0, 0, 0, 0, 0, 2}
			_, _ = conn.Write(append([]byte{4, 1, 0, byte(8 + len(options)), 0, 0, 1, 0}, options...))
			rest, _ := io.ReadAll(conn)
			conn.Close()
			heard <- rest
		}
	})
	source := certstore.Source{URL: "sqlserver://gw@" + listener.Addr().String() + "/apim?encrypt=true", Password: "secret"}
	refused(t, source, false, nil, "encryption")
	if rest := <-heard; len(rest) > 0 {
		t.Errorf("the server is told %d bytes", len(rest))
	}
	listener.Close()
	server.Wait()
	refused(t, source, false, certstore.ErrUnavailable, "is the server up")
}

func TestOracleIsNotBuilt(t *testing.T) {
	_, err := certstore.ParseURL("oracle://gw:secret@db/apim")
	if err != nil && (!strings.Contains(err.Error(), "-tags oracle") || strings.Contains(err.Error(), "secret")) {
		t.Error(err)
	}
}
