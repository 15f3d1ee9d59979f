package token_test

import (
	"encoding/json"
	"testing"

	"github.com/c2sp/wycheproof"

	"sallyport/policy/token"
)

// A vectorFile is the part of Wycheproof's files on JSON Web Signatures and Keys that matters here.
type vectorFile struct {
	TestGroups []struct {
		Comment         string
		Public, Private json.RawMessage
		Tests           []struct {
			ID      int `json:"tcId"`
			Comment string
			JWS     *json.RawMessage // text, or an object for the JSON serialisation
			Result  string
		}
	}
}

// differences are vectors on which the verifier and Wycheproof differ, and why. Those of shared secrets are not listed
// one by one: none verifies anything here, good signature or not.
var differences = map[string]string{
	"rs256 emptyPayload": noPayload, "rs384 emptyPayload": noPayload, "rs512 emptyPayload": noPayload,
	"ps256 emptyPayload": noPayload, "ps384 emptyPayload": noPayload, "ps512 emptyPayload": noPayload,
	"rfc7520 Figure20": "the key says PS256, and the token PS384", "rfc7520WithKeyOps Figure20": "the key says PS256, and the token PS384",
	"rfc7520 Figure27": "the key says ES521, which is no algorithm", "rfc7520WithKeyOps Figure27": "the key says ES521, which is no algorithm",
	"jws_rsa_roca_key rejectsKeyWithRocaVulnerability": "weak keys are their issuer's to avoid: the fingerprint of CVE-2017-15361 is not looked for",
}

const noPayload = "a token without claims is none"

// TestWycheproof runs vectors that nobody here made through the verifier's door: the key set is read as an issuer's, the
// token is taken apart, its key found and its signature verified as for any token. Payloads are no claims, so that
// these are left out. Encryption, and sets of secret keys, have no door here.
func TestWycheproof(t *testing.T) {
	ran := 0
	for _, name := range []string{"json_web_signature_test.json", "json_web_key_test.json", "json_web_crypto_test.json"} {
		content, err := wycheproof.TestVectors.(interface {
			ReadFile(string) ([]byte, error)
		}).ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var f vectorFile
		if err := json.Unmarshal(content, &f); err != nil {
			t.Fatal(err)
		}
		for _, g := range f.TestGroups {
			key := g.Public
			if key == nil {
				key = g.Private // a shared secret: it has no public half
			}
			var set struct{ Keys json.RawMessage }
			if json.Unmarshal(key, &set) != nil || set.Keys == nil {
				key = append(append([]byte(`{"keys":[`), key...), `]}`...)
			}
			for _, v := range g.Tests {
				if v.JWS == nil {
					continue
				}
				ran++
				var raw string
				if json.Unmarshal(*v.JWS, &raw) != nil {
					raw = string(*v.JWS)
				}
				err := token.VerifyJWS(key, raw)
				secret := g.Public == nil
				reason := differences[g.Comment+" "+v.Comment]
				if secret && err == nil {
					t.Errorf("%s %d: a shared secret verifies", name, v.ID)
				}
				if differs := (err == nil) != (v.Result == "valid"); differs != (reason != "") && !secret {
					t.Errorf("%s %d, %s, %s: %s, and the verifier says %v", name, v.ID, g.Comment, v.Comment, v.Result, err)
				}
			}
		}
	}
	if ran < 400 {
		t.Errorf("only %d vectors were run", ran)
	}
}
