package policy_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"sallyport/policy"
)

var update = flag.Bool("update", false, "check the table against the rules and write it anew")

var (
	wants       = []policy.Want{policy.Off, policy.Optional, policy.Mandatory}
	proofs      = []policy.Proof{policy.Absent, policy.Good, policy.Bad}
	precedences = []policy.Precedence{policy.CertificateFirst, policy.TokenFirst}
)

// TestDecideEveryCell holds every cell of {certificate off, optional, mandatory} x {token off, optional, mandatory} x
// {no, good, bad certificate} x {no, good, bad token} x both precedences against testdata/decisions.txt, which is
// written for people to read and was checked by one.
func TestDecideEveryCell(t *testing.T) {
	var got bytes.Buffer
	for _, precedence := range precedences {
		for _, wantCert := range wants {
			for _, wantToken := range wants {
				want := policy.Security{Certificate: wantCert, Token: wantToken, Precedence: precedence}
				fmt.Fprintf(&got, "%s first, certificate %s, token %s\n", precedence, wantCert, wantToken)
				for _, cert := range proofs {
					for _, token := range proofs {
						d := policy.Decide(want, policy.Evidence{Certificate: cert, Token: token})
						fmt.Fprintf(&got, "\tcertificate %-5s token %-5s %s\n", cert.String()+",", token.String()+":", outcome(d))
					}
				}
			}
		}
	}
	const file = "testdata/decisions.txt"
	if *update {
		if err := os.WriteFile(file, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		g, w := strings.Split(got.String(), "\n"), strings.Split(string(want), "\n")
		for i := range w {
			if i >= len(g) || g[i] != w[i] {
				t.Fatalf("line %d of %s\n got %q\nwant %q", i+1, file, g[min(i, len(g)-1)], w[i])
			}
		}
		t.Fatal("more cells than the table has")
	}
}

func outcome(d policy.Decision) string {
	switch {
	case d.Need != policy.Nothing:
		return "needs the " + d.Need.String()
	case d.Allowed:
		return "admitted as the " + d.By.String()
	}
	return "refused, " + d.Reason.String()
}

func TestDecide(t *testing.T) {
	both := policy.Security{Certificate: policy.Optional, Token: policy.Optional}
	tokenFirst := policy.Security{Certificate: policy.Optional, Token: policy.Optional, Precedence: policy.TokenFirst}
	bothMandatory := policy.Security{Certificate: policy.Mandatory, Token: policy.Mandatory}
	certMandatory := policy.Security{Certificate: policy.Mandatory, Token: policy.Optional}
	certOnly := policy.Security{Certificate: policy.Optional}
	tokenOnly := policy.Security{Token: policy.Optional}
	const (
		none, good, bad = policy.Absent, policy.Good, policy.Bad
		unseen          = policy.Unexamined
	)
	refused := func(r policy.Reason) policy.Decision { return policy.Decision{Reason: r} }
	as := func(m policy.Method) policy.Decision { return policy.Decision{Allowed: true, By: m} }
	need := func(m policy.Method) policy.Decision { return policy.Decision{Need: m} }

	for _, c := range []struct {
		name string
		want policy.Security
		have policy.Evidence
		out  policy.Decision
	}{
		{"the zero value refuses", policy.Security{}, policy.Evidence{Certificate: good, Token: good}, refused(policy.NoSecurityDeclared)},
		{"an open resource admits anybody as nobody", policy.Security{Open: true}, policy.Evidence{Certificate: bad, Token: bad}, policy.Decision{Allowed: true}},
		{"an open resource looks at nothing", policy.Security{Open: true}, policy.Evidence{}, policy.Decision{Allowed: true}},
		{"the certificate is looked at first", both, policy.Evidence{}, need(policy.Certificate)},
		{"a good certificate settles it unseen the token", both, policy.Evidence{Certificate: good}, as(policy.Certificate)},
		{"a bad certificate leaves it to the token", both, policy.Evidence{Certificate: bad, Token: good}, as(policy.Token)},
		{"a bad certificate asks for the token", both, policy.Evidence{Certificate: bad}, need(policy.Token)},
		{"a bad certificate without token is what was presented", both, policy.Evidence{Certificate: bad, Token: none}, refused(policy.InvalidCredentials)},
		{"an expired token says so, after a bad certificate too", both, policy.Evidence{Certificate: bad, Token: policy.Expired}, refused(policy.TokenExpired)},
		{"a token for others", tokenOnly, policy.Evidence{Token: policy.WrongAudience}, refused(policy.AudienceMismatch)},
		{"no key, no answer", tokenOnly, policy.Evidence{Token: policy.Unavailable}, refused(policy.KeyUnavailable)},
		{"no key does not matter to a good certificate", both, policy.Evidence{Certificate: good, Token: policy.Unavailable}, as(policy.Certificate)},
		{"token first: without the key nobody knows who calls", tokenFirst, policy.Evidence{Certificate: good, Token: policy.Unavailable}, refused(policy.KeyUnavailable)},
		{"token first: the token is asked for", tokenFirst, policy.Evidence{Certificate: good}, need(policy.Token)},
		{"token first: an expired token leaves the certificate", tokenFirst, policy.Evidence{Certificate: good, Token: policy.Expired}, as(policy.Certificate)},
		{"a certificate alone never asks for a token", certOnly, policy.Evidence{Certificate: bad}, refused(policy.InvalidCredentials)},
		{"a token alone never asks for a certificate", tokenOnly, policy.Evidence{}, need(policy.Token)},
		{"mandatory: a failed certificate ends it, the token unseen", certMandatory, policy.Evidence{Certificate: bad, Token: unseen}, refused(policy.InvalidCredentials)},
		{"both mandatory: the good certificate asks for the token", bothMandatory, policy.Evidence{Certificate: good}, need(policy.Token)},
		{"both mandatory: an expired token refuses", bothMandatory, policy.Evidence{Certificate: good, Token: policy.Expired}, refused(policy.TokenExpired)},
		{"a certificate of no known state refuses", both, policy.Evidence{Certificate: policy.Expired, Token: good}, refused(policy.MissingEvidenceKind)},
		{"a token of no known state refuses", tokenOnly, policy.Evidence{Token: 200}, refused(policy.InvalidCredentials)},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := policy.Decide(c.want, c.have); got != c.out {
				t.Errorf("got %+v, want %+v", got, c.out)
			}
		})
	}
}

// TestDecideNeverNeedsWhatItHas walks each question to its end as the gateway does: it has to end, and with the same
// outcome as if all had been known from the start.
func TestDecideNeverNeedsWhatItHas(t *testing.T) {
	for _, precedence := range precedences {
		for _, wantCert := range wants {
			for _, wantToken := range wants {
				for cert := policy.Absent; cert <= policy.Bad; cert++ {
					for token := policy.Absent; token <= policy.Unavailable; token++ {
						want := policy.Security{Certificate: wantCert, Token: wantToken, Precedence: precedence}
						full := policy.Evidence{Certificate: cert, Token: token}
						var have policy.Evidence
						d := policy.Decide(want, have)
						for steps := 0; d.Need != policy.Nothing; steps++ {
							if steps > 2 {
								t.Fatalf("%+v with %+v never ends", want, full)
							}
							switch d.Need {
							case policy.Certificate:
								have.Certificate = cert
							case policy.Token:
								have.Token = token
							}
							d = policy.Decide(want, have)
						}
						if all := policy.Decide(want, full); d != all {
							t.Errorf("%+v: step by step %+v, at once %+v", want, d, all)
						}
						if d.Allowed && cert != policy.Good && token != policy.Good {
							t.Errorf("%+v admits %+v", want, full)
						}
					}
				}
			}
		}
	}
}

func ExampleDecide() {
	want := policy.Security{Certificate: policy.Optional, Token: policy.Optional}
	d := policy.Decide(want, policy.Evidence{Certificate: policy.Bad})
	fmt.Println("next look at the", d.Need)
	d = policy.Decide(want, policy.Evidence{Certificate: policy.Bad, Token: policy.Good})
	fmt.Println(d.Allowed, "as the", d.By)
	// Output:
	// next look at the token
	// true as the token
}
