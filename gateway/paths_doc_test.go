package gateway_test

import (
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"sallyport/certstore"
	"sallyport/gateway/decision"
)

// docs/paths.md tells what becomes of a path; each row of its tables is a call here, over HTTP/1.1 and HTTP/2. Held:
// security L 152, 163.
func TestPathsPage(t *testing.T) {
	text, err := os.ReadFile("../docs/paths.md")
	if err != nil {
		t.Fatal(err)
	}
	resource := regexp.MustCompile("`([^`]+)` (none|mutualssl)")
	row := regexp.MustCompile("^\\| `([^`]+)` \\| ([0-9]{3})(?: `([a-z_]+)`)? \\|")
	rows := 0
	for _, section := range strings.Split(string(text), "\n## ")[1:] {
		title, body, _ := strings.Cut(section, "\n")
		resources, _, _ := strings.Cut(strings.TrimSpace(body), "\n")
		if !strings.HasPrefix(resources, "Resources: ") {
			continue
		}
		t.Run(title, func(t *testing.T) {
			f := newFixture(t, func(f *fixture, s *setup) {
				r := decision.Route{
					API: certstore.API{Name: "shop", Version: "1.0"}, Context: "/shop", DefaultVersion: true, Security: byCertificate,
					Upstream: f.upstream(t, f.backend.URL), EncodedSlash: strings.Contains(title, "encodedSlash: pass"),
					IgnoreCase: strings.Contains(title, "case: ignore"),
				}
				for _, m := range resource.FindAllStringSubmatch(resources, -1) {
					res := decision.Resource{Path: m[1], Security: byCertificate}
					if m[2] == "none" {
						res.Security = open
					}
					r.Resources = append(r.Resources, res)
				}
				s.routes = []decision.Route{r}
			})
			for _, line := range strings.Split(body, "\n") {
				m := row.FindStringSubmatch(line)
				if m == nil {
					continue
				}
				rows++
				target := strings.ReplaceAll(m[1], `\|`, "|") // as Markdown has it in tables
				for _, a := range []answer{
					f.dial(t, nil, "opt.test").get(t, target, "opt.test"), f.dialHTTP2(t, nil, "opt.test").get(t, target, "opt.test"),
				} {
					f.holdRow(t, target, m[2], m[3], a)
				}
			}
		})
	}
	if rows < 50 {
		t.Errorf("the page has %d rows only", rows)
	}
}

func (f *fixture) holdRow(t *testing.T, target, status, reason string, a answer) {
	t.Helper()
	if a.proto == 2 && a.status == 0 && reason == "bad_request" {
		return // an error of HTTP/2 itself, before there is a call
	}
	if got := strconv.Itoa(a.status); got != status {
		t.Errorf("%s over HTTP/%d: status %s, want %s", target, a.proto, got, status)
		return
	}
	if status == "200" {
		if sent := f.backend.last(t).Target; !strings.HasSuffix(target, sent) {
			t.Errorf("%s over HTTP/%d is sent as %s", target, a.proto, sent)
		}
		return
	}
	if a.id() == "" || reason == "" {
		return // refused before there was a call
	}
	if s := f.seen(t, a.id()); s.Reason != reason {
		t.Errorf("%s over HTTP/%d: %s, want %s", target, a.proto, s.Reason, reason)
	}
}
