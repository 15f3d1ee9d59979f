package certstore_test

import (
	"net/url"
	"strings"
	"sync"
	"testing"

	"sallyport/certstore/certstoretest"
	"sallyport/internal/testdb"
)

func TestPostgres(t *testing.T) {
	t.Parallel() // with the other: they wait for their servers
	certstoretest.Run(t, certstoretest.Database{
		New:         databases(t, testdb.Postgres, testdb.Options{}),
		CrashRounds: 6,
	})
}

func TestMariaDB(t *testing.T) {
	t.Parallel()
	certstoretest.Run(t, certstoretest.Database{
		New:         databases(t, testdb.MariaDB, testdb.Options{}),
		CrashRounds: 6,
	})
}

// databases makes databases on a server, which starts when the first is asked for: a test binary that is started again as
// a writer needs none.
func databases(t *testing.T, start func(testing.TB, testdb.Options) *testdb.Server, o testdb.Options) func(testing.TB) string {
	server := sync.OnceValue(func() *testdb.Server { return start(t, o) })
	return func(t testing.TB) string { return withPassword(server().New(t)) }
}

// withPassword is the URL of a database with its password.
func withPassword(d testdb.Database) string {
	return strings.Replace(d.URL, "@", ":"+strings.ReplaceAll(url.QueryEscape(d.Password), "+", "%20")+"@", 1)
}
