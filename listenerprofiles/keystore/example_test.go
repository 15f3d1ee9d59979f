package keystore_test

import (
	"fmt"
	"os"
	"time"

	"sallyport/listenerprofiles/keystore"
)

func ExampleOpen() {
	data, err := os.ReadFile("testdata/keys.jks")
	if err != nil {
		fmt.Println(err)
		return
	}
	ref := keystore.Ref{Location: "testdata/keys.jks", Type: "JKS", Password: "changeit", KeyPassword: "keypass"}
	store, err := keystore.Open(data, ref)
	if err != nil {
		fmt.Println(err)
		return
	}
	pairs, err := store.KeyPairs("gateway", time.Now())
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(pairs[0].Leaf.Subject)

	_, err = store.Trusted()
	fmt.Println(err)
	// Output:
	// CN=gateway.test
	// keystore testdata/keys.jks: no trusted certificate: it holds private keys only
}
