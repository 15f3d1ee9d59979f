package certstore_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log"

	"sallyport/certstore"
	"sallyport/internal/testpki"
)

func Example() {
	ctx := context.Background()
	store, err := certstore.Open(ctx, "sqlite::memory:", certstore.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()

	api, err := certstore.ParseAPI("orders:1.0.0")
	if err != nil {
		log.Fatal(err)
	}
	cert, err := certstore.ParseCertificate(uploaded())
	if err != nil {
		log.Fatal(err)
	}
	err = store.Add(ctx, certstore.Client{
		API: api, Alias: "acme", KeyType: certstore.Production, Tier: "Gold", Certificate: cert,
	})
	if err != nil {
		log.Fatal(err)
	}

	clients, problems, err := store.List(ctx)
	if err != nil {
		log.Fatal(err)
	}
	index, err := certstore.NewIndex(clients)
	if err != nil {
		log.Fatal(err)
	}
	client := index.Find(api, sha256.Sum256(cert.Raw))
	fmt.Println(len(problems), client.Alias, client.Tier)
	fmt.Println(index.Find(certstore.API{Name: "payments", Version: "1.0.0"}, client.Fingerprint))
	// Output:
	// 0 acme Gold
	// <nil>
}

// uploaded stands for the file that a client sends in.
func uploaded() []byte { return testpki.SelfSigned(testpki.Panic, testpki.Leaf{}).CertPEM() }
