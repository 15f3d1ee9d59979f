package decision

import (
	"net/http"
	"strings"
	"testing"

	"golang.org/x/net/http/httpguts"

	"sallyport/gateway/message"
)

func TestManaged(t *testing.T) {
	h := http.Header{}
	for _, name := range []string{
		"X-WSO2-CLIENT-CERTIFICATE", "x_wso2_client-certificate", "Client-Cert", "CLIENT_CERT_CHAIN", "Client-Cert-Anything", "X-Forwarded-Client-Cert",
		"X-Amzn-Mtls-Clientcert", "x_amzn_mtls_x", "X-SSL-CERT", "X_SSL_", "SSL_CLIENT_S_DN", "SSL-Client-Verify", "X-Client-Cert", "X-Client-Cert-Hash",
		"X-Sallyport-Client", "x_sallyport_subject", "X-Jwt-Assertion", "X_JWT_ASSERTION", "X-Forwarded-For", "x_forwarded_proto", "Forwarded", "X-Real-Ip",
		"X-Request-Id", "Traceparent", "Tracestate", "Proxy-Connection", "Proxy_Authorization", "X-Original-Url", "X-Rewrite-URL", "X-My-Cert", "x_my_CERT",
		"X.Sallyport.Client", "X~Sallyport~Client", "SSL.CLIENT.VERIFY", "x!forwarded|for", "Proxy", "PROXY", "X-Remote-User", "X_REMOTE_USER",
		"X-Forwarded-Tls-Client-Cert", "X-Forwarded-Tls-Client-Cert-Info", "X-ARR-ClientCert", "x.arr.clientcert", "Cf-Client-Cert-Sha256", "cf_client_cert_der_base64",
		"Transfer.Encoding", "content~length", "X*My*Cert",
		"X-Sallyport-" + strings.Repeat("x", 100), "SSL_CLIENT_" + strings.Repeat("x", 60_000),
		"Content_Length", "TRANSFER_ENCODING", "Authorization_"[:13] + "_x", "Content_Type",
	} {
		h[name] = []string{"forged"}
	}
	keep := []string{
		"Authorization", "Content-Type", "Cookie", "X-Client", "X-Certificate", "Client", "X-Wso2-Other", "Accept", "X_Custom", "X-My-Certificate", "Ssl", "X-Forwarde",
		"Authorization_x", "X-Proxy", "Remote-User", "Cf-Ray", "X.Custom",
	}
	for _, name := range keep {
		h[name] = []string{"kept"}
	}
	for name := range h {
		if isManaged(name, message.Fold("X-My-Cert")) {
			delete(h, name)
		}
	}
	for name := range h {
		if h.Get(name) == "forged" || h[name][0] == "forged" {
			t.Errorf("%s is left", name)
		}
	}
	for _, name := range keep {
		if len(h[name]) != 1 {
			t.Errorf("%s is gone", name)
		}
	}
}

// TestHeaderText: a name from outside is one harmless header value, and two names are never the same one.
func TestHeaderText(t *testing.T) {
	seen := map[string]string{}
	for _, s := range []string{
		"acme", "acme corp", "acme%20corp", "a,b", "a%2Cb", "a\r\nX: y", "ä", "a\x00", `a"b`, "a\tb", "名前", "a%", "%61cme", "a;b", "a=b", strings.Repeat("é", 300),
	} {
		got := headerText(s)
		if !httpguts.ValidHeaderFieldValue(got) || strings.ContainsAny(got, " ,\"") {
			t.Errorf("%q as a header value is %q", s, got)
		}
		if other, ok := seen[got]; ok {
			t.Errorf("%q and %q are both %q", s, other, got)
		}
		seen[got] = s
	}
	if headerText("acme-1.0_x") != "acme-1.0_x" {
		t.Error("a plain name is changed")
	}
}

func FuzzHeaderText(f *testing.F) {
	f.Add("acme", "ac me")
	f.Add("a%20", "a ")
	f.Fuzz(func(t *testing.T, a, b string) {
		x, y := headerText(a), headerText(b)
		if !httpguts.ValidHeaderFieldValue(x) || strings.ContainsAny(x, "\r\n ,\"") {
			t.Fatalf("%q as a header value is %q", a, x)
		}
		if a != b && x == y {
			t.Fatalf("%q and %q are both %q", a, b, x)
		}
	})
}

func FuzzIsManaged(f *testing.F) {
	f.Add("X_Client-Cert", "X-My-Cert")
	f.Fuzz(func(t *testing.T, name, configured string) {
		got := isManaged(name, configured)
		for _, same := range []string{strings.ToUpper(name), strings.ReplaceAll(name, "-", "_")} {
			if isASCII(name) && got && !isManaged(same, configured) {
				t.Fatalf("%q is managed and %q is not", name, same)
			}
		}
	})
}

func isASCII(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r >= 0x80 }) < 0
}
