package clientcert

import (
	"net/http"
	"slices"
	"strings"
	"testing"
)

// Whatever carries a certificate is watched by the door, removed from every call, and may be configured.
func TestEveryCarrierIsWatchedAndRemoved(t *testing.T) {
	names := []string{DefaultHeader}
	for f := range formats {
		format := Format(f)
		if got, err := ParseFormat(format.String()); got != format || err != nil {
			t.Errorf("%s is read as %d, %v", format, got, err)
		}
		if format != Auto {
			names = append(names, format.Header())
		}
	}
	for _, name := range slices.Concat(names, carriers) {
		canonical, lower := http.CanonicalHeaderKey(name), strings.ToLower(name)
		if !slices.Contains(carriers, canonical) {
			t.Errorf("%s is not watched for a second certificate", name)
		}
		if !slices.ContainsFunc(Headers(), func(m string) bool {
			prefix, wild := strings.CutSuffix(m, "*")
			return lower == m || wild && strings.HasPrefix(lower, prefix)
		}) {
			t.Errorf("%s is not removed", name)
		}
		if err := CheckHeader(name); err != nil {
			t.Errorf("%s %v", name, err)
		}
	}
	if _, err := ParseFormat("nginx"); err == nil || err.Error() != `"nginx" is none of auto, rfc9440, xfcc, alb` {
		t.Errorf("an unknown format: %v", err)
	}
}

func TestCheckHeader(t *testing.T) {
	for name, want := range map[string]string{
		"": "no header name", "X Cert": "no header name", "X_Cert": "no header name", "X-Cert:": "no header name", "X-Zertifikät": "no header name",
		"Authorization": "a meaning of its own", "X-Client-Cert-Hash": "a meaning of its own", "Sec-Anything": "a meaning of its own",
		"X-Sallyport-Client": "a meaning of its own", "client-cert-chain": "a meaning of its own", "Content-Type": "a meaning of its own",
		"X-My-Cert": "", "x-ssl-cert": "", "SSL-Client-Cert": "",
	} {
		if err := CheckHeader(name); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", name, err, want)
		}
	}
}
