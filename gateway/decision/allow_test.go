package decision

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/gateway/backend"
	"sallyport/gateway/http1"
	"sallyport/policy"
	"sallyport/policy/rule"
	"sallyport/policy/token"
)

func mustRule(t testing.TB, source string) *rule.Rule {
	t.Helper()
	if source == "" {
		return nil
	}
	r, err := rule.Compile(source)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// ruled is the table's snapshot with rules, and with other changes.
func (t *table) ruled(tb testing.TB, api, resource string, change func(*Route)) *Snapshot {
	tb.Helper()
	r := *t.decider.Snapshot().Routes.routes[0]
	r.Allow = mustRule(tb, api)
	r.Resources = slices.Clone(r.Resources)
	r.Resources[0].Allow = mustRule(tb, resource)
	if change != nil {
		change(&r)
	}
	routes, err := NewTable(Settings{Tokens: aliceOnly{}}, []Route{r})
	if err != nil {
		tb.Fatal(err)
	}
	routes.Attach(new(backend.Registry))
	return &Snapshot{Routes: routes, Clients: t.decider.Snapshot().Clients}
}

// aliceOnly knows one token.
type aliceOnly struct{}

func (aliceOnly) Cached(raw string) (*token.Claims, bool) {
	if raw != "alice" {
		return nil, false
	}
	return &token.Claims{KeyManager: "resident", Subject: "alice", Scopes: []string{"orders:read"}}, true
}

func (aliceOnly) Verify(context.Context, string) (*token.Claims, error) {
	return nil, token.ErrInvalid
}

func (aliceOnly) Still(string, *token.Claims) (*token.Claims, error) { return nil, token.ErrInvalid }

func TestRulesNarrow(t *testing.T) {
	tab := newTable(t)
	fresh := *tab.exchange
	open := func(r *Route) { r.Resources[0].Security, r.Resources[0].Scopes = policy.Security{Open: true}, nil }
	mandatory := func(r *Route) {
		r.Resources[0].Security = policy.Security{Certificate: policy.Mandatory, Token: policy.Mandatory}
	}
	tokenFirst := func(r *Route) { r.Resources[0].Security.Precedence = policy.TokenFirst }
	scoped := func(r *Route) { r.Resources[0].Scopes = []string{"another"} }
	stranger := func(x *Exchange) {
		x.connection = &Connection{Endpoint: x.connection.Endpoint, Local: x.connection.Local, serverName: "api.test"}
	}
	bearer := func(raw string) func(*Exchange) {
		return func(x *Exchange) {
			r := *x.Request
			r.Fields = append(slices.Clone(r.Fields), http1.Field{Name: "Authorization", Value: "Bearer " + raw})
			x.Request = &r
		}
	}
	from := func(a string) func(*Exchange) { return func(x *Exchange) { x.Claimed = netip.MustParseAddr(a) } }
	target := func(path string) func(*Exchange) {
		return func(x *Exchange) {
			r := *x.Request
			r.Target = path
			x.Request = &r
		}
	}
	const allowed = reasons
	const hidden = `!path.startsWith("/orders/1.0.0/items/secret")`
	for _, tt := range []struct {
		name          string
		api, resource string
		change        func(*Route)
		calls         []func(*Exchange)
		want          Reason
		problem       string
	}{
		{"both hold", `certificate.alias == "acme"`, `method == "GET"`, nil, nil, allowed, ""},
		{"the API's does not", `method == "POST"`, `true`, nil, nil, NotAllowed, "allow of the API: false"},
		{"the resource's does not", `true`, `method == "POST"`, nil, nil, NotAllowed, "allow of resource /items/{id}: false"},
		{"the resource's alone", ``, `certificate.cn == "acme" && certificate.tier == "Many" && certificate.keyType == "PRODUCTION"`, nil, nil, allowed, ""},
		{"an error allows nothing", `token.subject == "alice"`, ``, nil, nil, NotAllowed, "allow of the API: the call has no token"},
		{"all facts", `resource == "/items/{id}" && host == "api.test" && api == "orders:1.0.0" && path == "/orders/1.0.0/items/7" && now < timestamp("2032-01-01T00:00:00Z")`, ``, nil, nil, allowed, ""},
		{"an address", `inNetwork(address, "10.0.0.0/8")`, ``, nil, []func(*Exchange){from("10.9.9.9")}, allowed, ""},
		{"another address", `inNetwork(address, "10.0.0.0/8")`, ``, nil, []func(*Exchange){from("11.9.9.9")}, NotAllowed, "false"},
		{"no address", `!inNetwork(address, "10.0.0.0/8")`, ``, nil, nil, NotAllowed, "address is not known"},
		{"a token", `token.subject == "alice" && !certificate.present`, ``, nil, []func(*Exchange){stranger, bearer("alice")}, allowed, ""},
		{"a token that is not looked at", `token.present`, ``, nil, []func(*Exchange){bearer("alice")}, NotAllowed, "false"},
		{"a token that goes first", `token.present && !certificate.present`, ``, tokenFirst, []func(*Exchange){bearer("alice")}, allowed, ""},
		{"both", `token.subject == "alice" && certificate.alias == "acme"`, ``, mandatory, []func(*Exchange){bearer("alice")}, allowed, ""},
		{"no call is let in by a rule", `true`, `true`, nil, []func(*Exchange){stranger}, MissingCredentials, ""},
		{"nor is it asked about one that is refused", `false`, `false`, nil, []func(*Exchange){stranger}, MissingCredentials, ""},
		{"a bad token stays bad", `true`, `true`, nil, []func(*Exchange){stranger, bearer("mallory")}, InvalidCredentials, ""},
		{"a bad certificate of two", `true`, ``, mandatory, []func(*Exchange){stranger, bearer("alice")}, MissingCredentials, ""},
		{"a scope goes before", `false`, ``, scoped, nil, ScopeMissing, ""},
		{"an open resource", `method == "GET"`, `path.startsWith("/orders/")`, open, []func(*Exchange){stranger}, allowed, ""},
		{"an open resource narrowed", `method == "POST"`, ``, open, []func(*Exchange){stranger}, NotAllowed, "false"},
		{"an open resource looks at no certificate", `!certificate.present && !token.present`, ``, open, []func(*Exchange){bearer("alice")}, allowed, ""},
		{"nor does a rule there make it look", `certificate.alias == "acme"`, ``, open, nil, NotAllowed, "no certificate"},
		{"a path", hidden, ``, nil, nil, allowed, ""},
		{"a path that is hidden", hidden, ``, nil, []func(*Exchange){target("/orders/1.0.0/items/secret")}, NotAllowed, "false"},
		{"in another spelling", hidden, ``, nil, []func(*Exchange){target("/orders/1.0.0/items/%73ecret")}, NotAllowed, "false"},
		{"with a parameter", `path != "/orders/1.0.0/items/secret"`, ``, nil, []func(*Exchange){target("/orders/1.0.0/items/secret;x=1")}, NotAllowed, "false"},
		{"with a final slash", `path != "/orders/1.0.0/items"`, ``, func(r *Route) { r.Resources[0].Path = "/*" }, []func(*Exchange){target("/orders/1.0.0/items/")}, NotAllowed, "false"},
		{"with an escaped slash", `!path.startsWith("/orders/1.0.0/items/a/")`, ``, func(r *Route) {
			r.Resources[0].Path, r.EncodedSlash = "/*", true
		}, []func(*Exchange){target("/orders/1.0.0/items/a%2Fb")}, NotAllowed, "false"},
		{"an escaped slash stays one", `path.endsWith("a%2Fb") || path.endsWith("a/b")`, ``, func(r *Route) {
			r.Resources[0].Path, r.EncodedSlash = "/*", true
		}, []func(*Exchange){target("/orders/1.0.0/items/a%2Fb")}, allowed, ""},
		{"in capitals", hidden, ``, func(r *Route) { r.IgnoreCase = true }, []func(*Exchange){target("/orders/1.0.0/Items/SECRET")}, NotAllowed, "false"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x := tab.again(&fresh)
			x.Snapshot = tab.ruled(t, tt.api, tt.resource, tt.change)
			for _, change := range tt.calls {
				change(x)
			}
			err := Await(context.Background(), x)
			x.place.Leave()
			if tt.want == allowed {
				if err != nil || !x.Access.Allowed {
					t.Fatalf("refused: %v", err)
				}
				return
			}
			var r *Refusal
			if !errors.As(err, &r) || r.Reason != tt.want || x.Access.Allowed || x.Access.By != policy.Nothing || x.stage != stageAuthorize {
				t.Fatalf("got %v at stage %d as %+v", err, x.stage, x.Access)
			}
			if !strings.Contains(err.Error(), tt.problem) {
				t.Errorf("the problem is %v", err)
			}
			if body := r.body(x.wanted()); strings.Contains(body, "items") || strings.Contains(body, "false") {
				t.Errorf("the caller is told %s", body)
			}
		})
	}
}

// TestReadingsAgreeInRules: a path that servers may read as another resource's is refused where a rule tells the two apart.
func TestReadingsAgreeInRules(t *testing.T) {
	rules := func(api, first, second string) func(*Route) {
		return func(r *Route) {
			r.Allow, r.Resources[0].Allow, r.Resources[1].Allow = mustRule(t, api), mustRule(t, first), mustRule(t, second)
		}
	}
	for _, tt := range []struct {
		name               string
		api, first, second string
		want               string
	}{
		{"no rules", "", "", "", "/*"},
		{"one rule for both", "", "method == 'GET'", "method == 'GET'", "/*"},
		{"one has a rule", "", "method == 'GET'", "", "ambiguous_path"},
		{"the other has one", "", "", "method == 'GET'", "ambiguous_path"},
		{"two rules", "", "method == 'GET'", "method == 'PUT'", "ambiguous_path"},
		{"the API's", "method == 'GET'", "", "", "/*"},
		{"the API's tells them apart", "resource != '/secret'", "", "", "ambiguous_path"},
		{"one rule tells them apart", "", "resource != '/secret'", "resource != '/secret'", "ambiguous_path"},
	} {
		table, err := tableOf(rules(tt.api, tt.first, tt.second), "/secret closed", "/* closed")
		if err != nil {
			t.Fatal(err)
		}
		if got, _, _ := strings.Cut(table.judge("/api/1/secret;x"), " "); got != tt.want {
			t.Errorf("%s: %s", tt.name, got)
		}
	}
}

// TestStreamsEndWithTheirRule: a stream whose rule holds no longer is broken off, and others go on.
func TestStreamsEndWithTheirRule(t *testing.T) {
	tab := newTable(t)
	var hour atomic.Int64
	start := tab.exchange.Started
	tab.decider.cfg.Now = func() time.Time { return start.Add(time.Duration(hour.Load()) * time.Hour) }
	tab.decider.cfg.Recheck = time.Millisecond
	s := tab.ruled(t, `now < timestamp("`+start.Add(time.Hour).Format(time.RFC3339)+`") || method == "POST"`, "", func(r *Route) {
		r.Resources[0].Methods = nil
	})
	s.Listeners = map[string]*Listener{tab.listener.Address: tab.listener}
	tab.decider.Set(*s)
	tab.exchange.Snapshot, tab.exchange.decider = tab.decider.Snapshot(), tab.decider
	var ended, others atomic.Int64
	x := tab.watched(t, func() { ended.Add(1) })
	tab.exchange.Request = &http1.Request{Method: "POST", Target: "/orders/1.0.0/items/7", Host: "api.test"}
	y := tab.watched(t, func() { others.Add(1) })
	tab.watch(t)
	hour.Store(2)
	for end := time.Now().Add(10 * time.Second); ended.Load() == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the stream goes on")
		}
	}
	x.Over()
	y.Over()
	if x.Fail(errors.New("broken off"), false); x.Refusal().Reason != NotAllowed {
		t.Errorf("it ended as %v", x.Err)
	}
	if others.Load() != 0 || y.rightEnded() != nil {
		t.Errorf("the other one ended: %v", y.rightEnded())
	}
}

func TestExplainTellsRules(t *testing.T) {
	tab := newTable(t)
	s := tab.ruled(t, `certificate.alias == "acme"`, `inNetwork(address, "10.0.0.0/8")`, nil)
	tab.decider.Set(*s)
	q := Question{
		Listener: tab.listener, Local: netip.MustParseAddr("127.0.0.1"), Host: "api.test", Method: "GET",
		Target: "/orders/1.0.0/items/7",
	}
	q.Chain = append(q.Chain, tab.leaf)
	steps := func() (Explanation, string) {
		e := tab.decider.Explain(context.Background(), q)
		var b strings.Builder
		for _, s := range e.Steps {
			b.WriteString(s.Stage + ": " + s.Finding + "\n")
		}
		return e, b.String()
	}
	for _, tt := range []struct {
		address string
		reason  string
		want    []string
	}{
		{"10.1.1.1", "", []string{"authorize: allow of the API: true\n", "authorize: allow of resource /items/{id}: true\n", "admitted as the certificate"}},
		{"11.1.1.1", "rule", []string{"allow of the API: true\n", "allow of resource /items/{id}: false\n", "refused: rule: allow of resource"}},
		{"", "rule", []string{"allow of resource /items/{id}: the client's address is not known\n"}},
	} {
		q.Address, _ = netip.ParseAddr(tt.address)
		e, text := steps()
		for _, w := range tt.want {
			if !strings.Contains(text, w) {
				t.Errorf("%s: %q is not in\n%s", tt.address, w, text)
			}
		}
		if e.Reason != tt.reason || e.Allowed != (tt.reason == "") {
			t.Errorf("%s: %+v", tt.address, e)
		}
	}
	q.Chain = nil
	if _, text := steps(); strings.Contains(text, "allow of") {
		t.Errorf("a rule is told of a call that it is not asked about:\n%s", text)
	}
}

func BenchmarkDecideWithRule(b *testing.B) {
	for name, source := range map[string]string{
		"none": ``, "typical": `certificate.tier == "Many" && method in ["GET", "HEAD"] && certificate.alias != "x"`,
	} {
		b.Run(name, func(b *testing.B) {
			tab := newTable(b)
			fresh := *tab.exchange
			fresh.Snapshot = tab.ruled(b, source, "", nil)
			b.ReportAllocs()
			for b.Loop() {
				if err := tab.decide(&fresh); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
