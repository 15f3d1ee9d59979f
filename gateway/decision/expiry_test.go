package decision

import (
	"strings"
	"testing"
)

func TestCheckExpiryHeader(t *testing.T) {
	for name, want := range map[string]string{
		ExpiryHeader: "", "Client-Cert-Ends": "", strings.Repeat("x", maxExpiryHeader): "",
		"": "no header name", "X Ends": "no header name", "X-Ends\r\nX": "no header name", "X_Ends": "no header name",
		"Set-Cookie": "a meaning of its own", "content-length": "a meaning of its own", "Expires": "a meaning of its own",
		"RateLimit": "a meaning of its own", "X-Request-Id": "a meaning of its own", "Access-Control-Allow-Origin": "a meaning of its own",
		"Strict-Transport-Security": "choose a name like " + ExpiryHeader, "X-Sallyport-Client": "a meaning of its own",
		strings.Repeat("x", maxExpiryHeader+1): "more than 64 characters",
	} {
		if err := CheckExpiryHeader(name); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", name, err, want)
		}
	}
}
