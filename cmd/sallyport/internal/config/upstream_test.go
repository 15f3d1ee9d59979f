package config_test

import (
	"testing"

	"sallyport/cmd/sallyport/internal/config"
)

// TestProtocol gives each protocol the URLs that it can be spoken at, and an own certificate wherever one https URL asks for it.
func TestProtocol(t *testing.T) {
	for _, c := range []struct{ upstream, want string }{
		{"{urls: [http://a]}", "http1"},
		{"{urls: [https://a]}", "http1"},
		{"{urls: [http://a, https://b], sandboxUrls: [https://c]}", "http1"},
		{"{urls: [http://a], sandboxUrls: [https://c], protocol: http1, keyStore: {location: a.jks}}", "http1"},
		{"{urls: [https://a, https://b], sandboxUrls: [https://c], protocol: h2, keyStore: {location: a.jks}}", "h2"},
		{"{urls: [https://a], protocol: h2}", "h2"},
		{"{urls: [http://a, http://b], sandboxUrls: [http://c], protocol: h2c}", "h2c"},
	} {
		file := write(t, "sallyport.yaml", "listeners: [{name: http, address: 127.0.0.1:0}]\n"+
			"apis: [{name: a, version: 1.0.0, context: /a, security: [none], upstream: "+c.upstream+"}]\n")
		got, err := config.Load(file)
		if err != nil {
			t.Errorf("%s: %v", c.upstream, err)
			continue
		}
		api := got.APIs[0]
		if api.Upstream.Protocol != c.want || api.Upstream.MaxCalls != 2048 || api.MaxBodySize != 0 {
			t.Errorf("%s: protocol %s, %d calls, bodies of %d bytes; want %s, 2048, 0",
				c.upstream, api.Upstream.Protocol, api.Upstream.MaxCalls, api.MaxBodySize, c.want)
		}
	}
}
