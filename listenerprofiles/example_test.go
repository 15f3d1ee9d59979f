package listenerprofiles_test

import (
	"fmt"

	"sallyport/listenerprofiles"
)

func ExampleParse() {
	settings, err := listenerprofiles.Parse("listenerprofiles.xml", []byte(`<?xml version="1.0" encoding="ISO-8859-1"?>
<parameter name="SSLProfiles">
  <profile>
    <bindAddress>0.0.0.0</bindAddress>
    <ServerName>api.example.com</ServerName>
    <KeyStore>
      <Location>stores/gateway.jks</Location>
      <Type>JKS</Type>
      <Password>${env:STORE_PASSWORD}</Password>
    </KeyStore>
    <TrustStore>
      <Location>stores/client-truststore.jks</Location>
      <Type>JKS</Type>
      <Password>${env:STORE_PASSWORD}</Password>
    </TrustStore>
    <SSLVerifyClient>require</SSLVerifyClient>
  </profile>
</parameter>`))
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, s := range settings {
		fmt.Println(s.Name, s.VerifyClient, s.TrustStore)
	}

	_, err = listenerprofiles.Parse("listenerprofiles.xml", []byte("<parameter name=\"SSLProfiles\">\n  <profil/>\n</parameter>"))
	fmt.Println(err)
	// Output:
	// profile 0.0.0.0 api.example.com require stores/client-truststore.jks (JKS)
	// listenerprofiles.xml:2:3: <profil>: unknown element in <parameter>
}
