package config_test

import (
	"testing"

	"sallyport/cmd/sallyport/internal/config"
	"sallyport/gateway/backend"
)

// TestProtocol gives each protocol the URLs that it can be spoken at, and an own certificate wherever one https URL asks for it.
func TestProtocol(t *testing.T) {
	for _, c := range []struct {
		upstream string
		want     backend.Protocol
	}{
		{"{urls: [http://a]}", backend.HTTP1},
		{"{urls: [https://a]}", backend.HTTP1},
		{"{urls: [http://a, https://b], sandboxUrls: [https://c]}", backend.HTTP1},
		{"{urls: [http://a], sandboxUrls: [https://c], protocol: http1, keyStore: {location: a.jks}}", backend.HTTP1},
		{"{urls: [https://a, https://b], sandboxUrls: [https://c], protocol: h2, keyStore: {location: a.jks}}", backend.HTTP2},
		{"{urls: [https://a], protocol: h2}", backend.HTTP2},
		{"{urls: [http://a, http://b], sandboxUrls: [http://c], protocol: h2c}", backend.H2C},
	} {
		file := write(t, "sallyport.yaml", "listeners: [{name: http, address: 127.0.0.1:0}]\n"+
			"apis: [{name: a, version: 1.0.0, context: /a, security: [none], upstream: "+c.upstream+"}]\n")
		got, err := config.Load(file)
		if err != nil {
			t.Errorf("%s: %v", c.upstream, err)
			continue
		}
		api := got.APIs[0]
		if api.Upstream.Protocol != c.want || api.Upstream.MaxCalls != 2048 || api.MaxBody != 0 {
			t.Errorf("%s: protocol %d, %d calls, bodies of %d bytes; want %d, 2048, 0",
				c.upstream, api.Upstream.Protocol, api.Upstream.MaxCalls, api.MaxBody, c.want)
		}
	}
}
