package main_test

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"testing"
)

// An outcome is what becomes of a call: the status and code of a refusal, or whose identity it has.
type outcome struct {
	status int
	code   string
	by     string // certificate, token or nobody
}

var (
	byCertificate = outcome{200, "", "certificate"}
	byToken       = outcome{200, "", "token"}
	byNobody      = outcome{200, "", "nobody"}
	nothing       = outcome{401, "900902", ""} // was presented
	bad           = outcome{401, "900901", ""}
	expired       = outcome{401, "900903", ""}
)

// truth is who may call what. The columns are the tokens: valid, expired, forged, none.
var truth = []struct {
	api, certificate string
	outcomes         [4]outcome
}{
	{"orders", "gold", [4]outcome{byCertificate, byCertificate, byCertificate, byCertificate}},
	{"orders", "unregistered", [4]outcome{byToken, expired, bad, bad}},
	{"orders", "expired", [4]outcome{byToken, expired, bad, bad}},
	{"orders", "rogue", [4]outcome{byToken, expired, bad, bad}},
	{"orders", "", [4]outcome{byToken, expired, bad, nothing}},

	{"payments", "gold", [4]outcome{byCertificate, byCertificate, byCertificate, byCertificate}},
	{"payments", "unregistered", [4]outcome{bad, bad, bad, bad}},
	{"payments", "expired", [4]outcome{bad, bad, bad, bad}},
	{"payments", "rogue", [4]outcome{bad, bad, bad, bad}},
	{"payments", "", [4]outcome{nothing, nothing, nothing, nothing}},

	{"catalog", "gold", [4]outcome{byToken, expired, bad, nothing}},
	{"catalog", "unregistered", [4]outcome{byToken, expired, bad, nothing}},
	{"catalog", "expired", [4]outcome{byToken, expired, bad, nothing}},
	{"catalog", "rogue", [4]outcome{byToken, expired, bad, nothing}},
	{"catalog", "", [4]outcome{byToken, expired, bad, nothing}},

	{"hello", "gold", [4]outcome{byNobody, byNobody, byNobody, byNobody}},
	{"hello", "unregistered", [4]outcome{byNobody, byNobody, byNobody, byNobody}},
	{"hello", "expired", [4]outcome{byNobody, byNobody, byNobody, byNobody}},
	{"hello", "rogue", [4]outcome{byNobody, byNobody, byNobody, byNobody}},
	{"hello", "", [4]outcome{byNobody, byNobody, byNobody, byNobody}},
}

var truthTokens = [4]string{"valid", "expired", "forged", ""}

// TestTruthTable makes every call of truth in each dialect, on the versioned path and on the default one. The backend's
// count shows that exactly the allowed calls reached it.
func TestTruthTable(t *testing.T) {
	d := newDemo(t)
	p := d.quickstart()
	for _, how := range dialects {
		for _, row := range truth {
			c := d.client(row.certificate, how)
			for i, token := range truthTokens {
				for _, path := range []string{"/" + row.api + "/1.0.0/42", "/" + row.api + "/42"} {
					before := d.backendCount()
					r := c.get(t, path, d.bearer(token)...)
					reached := d.backendCount() - before - 1

					got := outcome{status: r.status, code: r.code(t)}
					wantReached := 0
					if r.status == http.StatusOK {
						e := r.echo(t)
						got.by = caller(e.Headers)
						wantReached = 1
						if e.Path != "/42" {
							t.Errorf("%s: the backend got the path %s", path, e.Path)
						}
					} else if r.header.Values("Www-Authenticate") == nil {
						t.Errorf("%s: a 401 names no way in", path)
					}
					if want := row.outcomes[i]; got != want {
						t.Errorf("%s %s, certificate %q, token %q: %+v, want %+v", how, path, row.certificate, token, got, want)
					}
					if reached != wantReached {
						t.Errorf("%s %s, certificate %q, token %q: %d calls reached the backend", how, path, row.certificate, token, reached)
					}
				}
			}
		}
	}
	p.stop()
}

// caller is the identity in the headers that the backend received.
func caller(h http.Header) string {
	certificate, hash, token := h.Values("X-Sallyport-Client"), h.Values("X-Client-Cert-Hash"), h.Values("X-Sallyport-Subject")
	switch {
	case len(certificate) == 1 && certificate[0] == "gold" && len(hash) == 1 && token == nil:
		return "certificate"
	case certificate == nil && hash == nil && len(token) == 1 && token[0] == "quickstart":
		return "token"
	case certificate == nil && hash == nil && token == nil:
		return "nobody"
	}
	return "somebody else"
}

// TestTheCertificateHeaderOpensNothing sends gold's certificate in every spelling of the header, on both listeners, from
// clients that are not trusted load balancers: no call is admitted, and no backend receives the header.
func TestTheCertificateHeaderOpensNothing(t *testing.T) {
	d := newDemo(t)
	p := d.quickstart()
	for _, at := range []struct {
		port         int
		certificates []string
	}{
		{d.Ports.HTTPS, []string{"", "rogue", "unregistered", "loadbalancer"}},
		{d.Ports.LoadBalancer, []string{"", "rogue", "unregistered"}},
	} {
		for _, how := range dialects {
			for _, certificate := range at.certificates {
				d.headerOpensNothing(d.client(certificate, how).onPort(at.port), fmt.Sprintf("%s on port %d as %q", how, at.port, certificate))
			}
		}
	}
	// The certificate itself is good at either door.
	for _, port := range []int{d.Ports.HTTPS, d.Ports.LoadBalancer} {
		if r := d.client("gold", dialects[3]).onPort(port).get(t, "/payments/42"); r.status != http.StatusOK {
			t.Errorf("gold's own certificate on port %d: %d", port, r.status)
		}
	}
	p.stop()
}

// headerOpensNothing calls with gold's certificate in each header of the family.
func (d *demoFolder) headerOpensNothing(c *client, who string) {
	d.t.Helper()
	certificate := url.PathEscape(d.read("clients/gold.crt")) // as NGINX writes it
	for _, header := range []string{
		"X-WSO2-CLIENT-CERTIFICATE", "x-wso2-client-certificate", "X_WSO2_CLIENT_CERTIFICATE", "Client-Cert", "Client_Cert",
		"X-Forwarded-Client-Cert", "X-Amzn-Mtls-Clientcert", "X-SSL-Client-Cert", "SSL-Client-Cert", "X-Client-Cert", "X-Sallyport-Client",
	} {
		before := d.backendCount()
		for _, path := range []string{"/orders/42", "/payments/1.0.0/42"} {
			if r := c.get(d.t, path, header, certificate); r.status != http.StatusUnauthorized {
				d.t.Errorf("%s with %s: %d on %s", who, header, r.status, path)
			}
		}
		if after := d.backendCount(); after != before+1 {
			d.t.Errorf("%s with %s: the backend was called", who, header)
		}
		r := c.get(d.t, "/hello/42", header, certificate)
		if r.status != http.StatusOK {
			d.t.Errorf("%s with %s: %d on /hello/42", who, header, r.status)
			continue
		}
		e := r.echo(d.t)
		for name, values := range e.Headers {
			if slices.Contains(values, certificate) {
				d.t.Errorf("%s with %s: the backend got it as %s", who, header, name)
			}
		}
		if got := caller(e.Headers); got != "nobody" {
			d.t.Errorf("%s with %s: the backend thinks that it is called by %s", who, header, got)
		}
	}
}
