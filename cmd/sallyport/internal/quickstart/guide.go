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
	Line   string // for a POSIX shell in the demonstration's folder
}

// Commands are the calls that the guide prints, in its order. Each holds for a folder that is as it was generated;
// the one of trial holds once a minute.
func (d *Demo) Commands() []Command {
	return []Command{
		{"a registered certificate, that of gold", []int{200}, d.curl("gold", "", "/orders/1.0.0/42")},
		{"an access token, on the path of the default version", []int{200}, d.curl("", curlValid, "/orders/42")},
		{"a good certificate settles it: nobody looks at the forged token", []int{200}, d.curl("gold", curlForged, "/orders/42")},
		{"a certificate that no API knows, and a good token", []int{200}, d.curl("unregistered", curlValid, "/orders/42")},
		{"nothing presented", []int{401}, d.curl("", "", "/orders/42")},
		{"a certificate that has expired", []int{401}, d.curl("expired", "", "/orders/42")},
		{"a forgery with the subject and serial number of gold", []int{401}, d.curl("rogue", "", "/orders/42")},
		{"payments takes certificates only", []int{200}, d.curl("bronze", "", "/payments/7")},
		{"no token helps there", []int{401}, d.curl("", curlValid, "/payments/7")},
		{"catalog takes tokens only", []int{200}, d.curl("", curlValid, "/catalog/books")},
		{"hello is open to everybody", []int{200}, d.curl("", "", "/hello/world")},
		{"trial may call three times a minute: the fourth call is refused", []int{200, 200, 200, 429}, d.curl("trial", "", "/orders/[1-4]")},
	}
}

// Enter is the shell's command that goes to the folder in which Commands work, from where the program was started.
func (d *Demo) Enter() string { return "cd " + quote(d.argument(".")) }

// Guide prints the commands to try, for people, to be pasted as they are, in at most 80 columns. Errors of w end it
// silently.
func (d *Demo) Guide(w io.Writer) {
	var b strings.Builder
	state := "made"
	if d.Reused {
		state = "used again, with all that is in it"
	}
	fmt.Fprintf(&b, "Quickstart in %s (%s).\n", d.Dir, state)
	if d.edited {
		fmt.Fprintf(&b, "%s was edited:\nthe answers may differ from those below.\n", d.ConfigFile)
	}
	fmt.Fprintf(&b, `
Five words first:
  API          what callers reach, with rules of its own: orders, payments, ...
  context      the path of an API: /orders/1.0.0; /orders is its default version
  registered   known to an API, by certificate, as one of its clients
  trust store  the CAs whose certificates are believed, registered or not
  tier         how often a client may call: Trial is three times a minute

In another terminal, in the folder where you started this, type

  %s

and then paste any of these. The number is the status to expect, the last one
of several.

`, d.Enter())
	for _, c := range d.Commands() {
		fmt.Fprintf(&b, "# %d  %s\n%s\n", c.Status[len(c.Status)-1], c.Shows, c.Line)
	}
	fmt.Fprintf(&b, `
HTTP/2    is what curl speaks here; try --http1.1 and --tls-max 1.2, too
backend   http://127.0.0.1:%d answers with what it received;
          its "count" shows that refused calls never got there
tokens    http://127.0.0.1:%d/oauth2/token gives more to the client
          %s, whose secret is in %s
balancer  https://localhost:%d is for load balancers;
          clients/loadbalancer.crt is one's certificate
status    http://127.0.0.1:%d/healthz, /readyz and /metrics
next      read %s, change it, and see it take effect
stop      Ctrl-C, here
`, d.Ports.Backend, d.Ports.Issuer, issuerClient, fileIssuerSecret, d.Ports.LoadBalancer, d.Ports.Status, fileSettings)
	io.WriteString(w, b.String())
}

// curl writes one call with the certificate and the token of the demonstration that are named, or without.
func (d *Demo) curl(certificate, token, path string) string {
	words := []string{"curl"}
	for _, name := range []string{certificate, token} {
		if name != "" {
			words = append(words, "-K "+curlFile(name))
		}
	}
	if certificate == "" && token == "" {
		words = append(words, "-K "+curlFile(curlNobody))
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

// quote makes s one word of a POSIX shell.
func quote(s string) string {
	plain := s != "" && strings.IndexFunc(s, func(c rune) bool {
		return !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("_-./:@%+=,", c))
	}) < 0
	if plain {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
