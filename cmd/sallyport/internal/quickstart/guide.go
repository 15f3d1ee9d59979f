package quickstart

import (
	"fmt"
	"io"
	"path/filepath"
	"strings"
)

// A Command is a curl call that shows something.
type Command struct {
	Shows  string // in a few words that no shell takes for more, should they be pasted too
	Status []int  // what the gateway answers, one for each request of the command
	Line   string // for a POSIX shell, in the folder in which the program was started
}

// Commands are the calls that the guide prints, in its order. Each holds for a folder that is as it was generated;
// the one of trial holds once a minute.
func (d *Demo) Commands() []Command {
	return []Command{
		{"a registered certificate, of gold", []int{200}, d.curl("gold", "", "/orders/1.0.0/42")},
		{"an access token, on the path of the default version", []int{200}, d.curl("", tokenValid, "/orders/42")},
		{"a good certificate settles it: nobody looks at the forged token", []int{200}, d.curl("gold", tokenForged, "/orders/42")},
		{"a certificate that no API knows, and a good token", []int{200}, d.curl("unregistered", tokenValid, "/orders/42")},
		{"nothing presented", []int{401}, d.curl("", "", "/orders/42")},
		{"a certificate that has expired", []int{401}, d.curl("expired", "", "/orders/42")},
		{"a forgery with the subject and serial number of gold", []int{401}, d.curl("rogue", "", "/orders/42")},
		{"payments takes certificates only", []int{200}, d.curl("bronze", "", "/payments/7")},
		{"no token helps there", []int{401}, d.curl("", tokenValid, "/payments/7")},
		{"catalog takes tokens only", []int{200}, d.curl("", tokenValid, "/catalog/books")},
		{"hello is open to everybody", []int{200}, d.curl("", "", "/hello/world")},
		{"trial may call three times a minute: the fourth call is refused", []int{200, 200, 200, 429}, d.curl("trial", "", "/orders/[1-4]")},
	}
}

// Guide prints the commands to try, for people, to be pasted as they are. Errors of w end it silently.
func (d *Demo) Guide(w io.Writer) {
	var b strings.Builder
	state := "made"
	if d.Reused {
		state = "used again, with its keys, certificates, tokens and database"
	}
	fmt.Fprintf(&b, "Quickstart in %s (%s).\n", d.Dir, state)
	if d.edited {
		fmt.Fprintf(&b, "%s was edited: the answers may differ from those below.\n", d.ConfigFile)
	}
	b.WriteString("Paste these; the number is the status to expect, the last one of several.\n\n")
	for _, c := range d.Commands() {
		fmt.Fprintf(&b, "# %d  %s\n%s\n", c.Status[len(c.Status)-1], c.Shows, c.Line)
	}
	fmt.Fprintf(&b, `
HTTP/2    is what curl speaks here; --http1.1 and --tls-max 1.2 work with each of them
backend   http://127.0.0.1:%d answers with what it received; "count" shows that refused calls never got there
tokens    http://127.0.0.1:%d/oauth2/token gives more: client %s, its secret in %s
balancer  https://localhost:%d is for load balancers: clients/loadbalancer.crt is one's certificate
status    http://127.0.0.1:%d/healthz, /readyz and /metrics
`, d.Ports.Backend, d.Ports.Issuer, issuerClient, filepath.Join(d.Dir, filepath.FromSlash(fileIssuerSecret)), d.Ports.LoadBalancer, d.Ports.Status)
	io.WriteString(w, b.String())
}

// curl writes one call with the certificate and the token of the demonstration that are named, or without.
func (d *Demo) curl(certificate, token, path string) string {
	words := []string{"curl -i --cacert", quote(d.argument(fileCA))}
	if certificate != "" {
		c := client{name: certificate}
		words = append(words, "--cert", quote(escapeColons(d.argument(c.certificateFile()))), "--key", quote(d.argument(c.keyFile())))
	}
	if token != "" {
		words = append(words, `-H "Authorization: Bearer $(cat `+quote(d.argument(token))+`)"`)
	}
	words = append(words, quote(fmt.Sprintf("https://localhost:%d%s", d.Ports.HTTPS, path)))
	return strings.Join(words, " ")
}

// argument is the path of a file in the demonstration that no program takes for an option.
func (d *Demo) argument(name string) string {
	path := filepath.Join(d.Dir, filepath.FromSlash(name))
	if strings.HasPrefix(path, "-") {
		path = "." + string(filepath.Separator) + path
	}
	return path
}

// escapeColons keeps curl from reading what follows a colon in --cert as the key's password.
func escapeColons(path string) string {
	return strings.NewReplacer(`\`, `\\`, ":", `\:`).Replace(path)
}

// quote makes s one word of a POSIX shell, also within $( ) in double quotes.
func quote(s string) string {
	plain := s != "" && strings.IndexFunc(s, func(c rune) bool {
		return !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("_-./:@%+=,", c))
	}) < 0
	if plain {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
