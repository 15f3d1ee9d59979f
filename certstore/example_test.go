package certstore_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log"
	"math/big"
	"time"

	"sallyport/certstore"
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

// uploaded stands for a file with a certificate.
func uploaded() []byte {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		log.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
