// Package certstoretest is the conformance test of certstore: what a Store promises, whichever database it is in.
//
// Each kind of database is a row: a test that calls Run. The other exported names are the vocabulary of these tests, for
// those that a database needs beside them.
package certstoretest

import (
	"testing"
	"time"

	"sallyport/certstore"
)

// A Database is a kind of database to be tested.
type Database struct {
	// New returns the URL of a new and empty database, which lasts until t ends.
	New func(t testing.TB) (url string)

	// Private says that each Store opened at a URL has a database of its own, which ends with it. Nothing is tested then
	// that takes two Stores at one database, or one after the other.
	Private bool

	// CrashRounds is how many writers are killed; 0 means 15.
	CrashRounds int

	// Check looks for damage in a database whose writer was killed, after it was opened again; nil: there is nothing to
	// look at.
	Check func(t testing.TB, url string)
}

// Run tests a kind of database. One of the tests kills writers: for that it starts the test binary again, which runs the
// same test by its name, in another process.
func Run(t *testing.T, db Database) {
	for name, test := range map[string]func(*testing.T, *certstore.Store){
		"a new store is empty":                      testEmpty,
		"add, get, list":                            testAdd,
		"what Add refuses":                          testAddRefuses,
		"an alias belongs to an API and a key type": testAliasScope,
		"texts are verbatim":                        testVerbatim,
		"update":                                    testUpdate,
		"what Update refuses":                       testUpdateRefuses,
		"match":                                     testMatch,
		"remove":                                    testRemove,
		"the key type may be left out":              testWithoutKeyType,
		"50 lives of one alias":                     testTombstones,
		"list is sorted":                            testSorted,
		"a cancelled call changes nothing":          testCancelled,
		"many goroutines":                           testGoroutines,
		"closed":                                    testClosed,
		"version":                                   testVersion,
		"version of a closed store":                 testVersionClosed,
		"quotas":                                    testQuotas,
		"many quotas":                               testManyQuotas,
		"quotas are no registrations":               testQuotasApart,
		"configurations":                            testConfigurations,
		"a large file of a configuration":           testLargeFile,
		"nodes":                                     testNodes,
		"values":                                    testValues,
		"names of values":                           testValueNames,
		"what values refuse":                        testValuesRefuse,
		"values are no registrations":               testValuesApart,
		"leases":                                    testLeases,
		"denials":                                   testDenials,
		"what denials refuse":                       testDenialsRefuse,
		"denials change the version":                testDenialsVersion,
	} {
		t.Run(name, func(t *testing.T) { test(t, Open(t, db.New(t), certstore.Options{})) })
	}
	t.Run("the clock decides what has expired", func(t *testing.T) { testClock(t, db) })
	t.Run("own changes are told of", func(t *testing.T) { testChanged(t, db) })
	if db.Private {
		return
	}
	for name, test := range map[string]func(*testing.T, Database){
		"reopen":                         testReopen,
		"read-only":                      testReadOnly,
		"tenants":                        testTenants,
		"many open one new database":     testManyOpenOne,
		"two stores write":               testTwoStores,
		"version shows another's writes": testVersionOther,
		"killed writers":                 testKilledWriters,
		"list again":                     testListAgain,
		"two stores keep quotas":         testTwoStoresKeepQuotas,
		"two stores push":                testTwoStoresPush,
		"two stores put values":          testTwoStoresPut,
		"two stores fight for a lease":   testTwoStoresFight,
		"the term of a lease is whole":   testTermIsWhole,
		"two stores deny":                testTwoStoresDeny,
	} {
		t.Run(name, func(t *testing.T) { test(t, db) })
	}
}

func testClock(t *testing.T, db Database) {
	past := time.Now().Add(-time.Hour)
	s := Open(t, db.New(t), certstore.Options{Now: func() time.Time { return past.Add(-time.Minute) }})
	client := NewClient(t, "expired")
	client.Certificate = endingAt(t, past)
	Add(t, s, client)
	ExpectList(t, s, client)
}
