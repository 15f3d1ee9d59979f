package observe_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"go.uber.org/goleak"

	"sallyport/certstore"
	"sallyport/gateway"
	"sallyport/gateway/backend"
	"sallyport/gateway/clientcert"
	"sallyport/gateway/decision"
	"sallyport/gateway/http1"
	"sallyport/gateway/observe"
	"sallyport/policy"
	"sallyport/policy/ratelimit"
	"sallyport/policy/token"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// request is one that came over no wire, with a token that nobody may tell.
func request(method, target, host string) *http1.Request {
	r := &http1.Request{Method: method, Target: target, Host: host}
	r.Fields = []http1.Field{{Name: "Authorization", Value: "Bearer canary-token"}}
	return r
}

var orders = certstore.API{Name: "orders", Version: "1.0.0"}

// exchange is an allowed mTLS call.
func exchange() *decision.Exchange {
	return &decision.Exchange{
		Request: request("GET", "/orders/1.0.0/items/7?secret=canary-query", "api.test"), ID: "id-1", Peer: netip.MustParseAddrPort("192.0.2.7:4711"),
		Listener: &decision.Listener{Name: "https"}, Path: "/orders/1.0.0/items/7", Query: "secret=canary-query",
		Route: &decision.Route{API: orders}, Resource: &decision.Resource{Path: "/items/{id}"},
		Certificate: &clientcert.Certificate{Leaf: &x509.Certificate{Raw: []byte("canary-certificate")}, Fingerprint: [32]byte{0xab, 31: 0xcd}},
		Client:      &certstore.Client{API: orders, Alias: "acme", Tier: "Gold"},
		Access:      policy.Decision{Allowed: true, By: policy.Certificate},
		Allowance:   ratelimit.Verdict{Allowed: true}, Upstream: "http://backend.test", Status: 200, BytesIn: 3, BytesOut: 42,
	}
}

func metricsOf(t testing.TB, m *observe.Metrics) string {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != 200 {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	return w.Body.String()
}

func hasLine(text, line string) bool { return strings.Contains("\n"+text, "\n"+line+"\n") }

// TestMetrics: each kind of call is counted where an operator looks for it.
func TestMetrics(t *testing.T) {
	m := observe.NewMetrics("test")
	m.Observe(exchange(), 3*time.Millisecond)
	m.Observe(exchange(), 30*time.Millisecond)

	refused := exchange()
	refused.Client, refused.Access, refused.Status, refused.Err = nil, policy.Decision{}, 401, &decision.Refusal{Reason: decision.InvalidCredentials}
	m.Observe(refused, time.Millisecond)

	throttled := exchange()
	throttled.Status, throttled.Err = 429, &decision.Refusal{Reason: decision.CertificateThrottled}
	throttled.Allowance = ratelimit.Verdict{Level: ratelimit.LevelClient, Tier: "Gold"}
	m.Observe(throttled, time.Millisecond)

	nowhere := &decision.Exchange{Request: request("GET", "/x", "h"), Listener: &decision.Listener{Name: "https"}, Status: 404, Err: &decision.Refusal{Reason: decision.NoSuchAPI}}
	m.Observe(nowhere, time.Millisecond)

	broken := exchange()
	broken.Err = errors.New("the answer was broken off")
	m.Observe(broken, time.Millisecond)

	text := metricsOf(t, m)
	for _, line := range []string{
		`sallyport_calls_total{api="orders:1.0.0",by="certificate",listener="https",status="2xx"} 3`,
		`sallyport_calls_total{api="orders:1.0.0",by="refused",listener="https",status="4xx"} 1`,
		`sallyport_calls_total{api="orders:1.0.0",by="certificate",listener="https",status="4xx"} 1`,
		`sallyport_calls_total{api="",by="refused",listener="https",status="4xx"} 1`,
		`sallyport_refusals_total{api="orders:1.0.0",reason="invalid_credentials"} 1`,
		`sallyport_refusals_total{api="orders:1.0.0",reason="throttled_certificate"} 1`,
		`sallyport_refusals_total{api="orders:1.0.0",reason="broken_off"} 1`,
		`sallyport_refusals_total{api="",reason="no_such_api"} 1`,
		`sallyport_throttled_calls_total{api="orders:1.0.0",level="certificate",tier="Gold"} 1`,
		`sallyport_body_bytes_total{api="orders:1.0.0",direction="in"} 15`,
		`sallyport_body_bytes_total{api="orders:1.0.0",direction="out"} 210`,
		`sallyport_call_duration_seconds_count{api="orders:1.0.0"} 5`,
		`sallyport_call_duration_seconds_bucket{api="orders:1.0.0",le="0.005"} 4`,
		`sallyport_build_info{go="` + runtime.Version() + `",version="test"} 1`,
	} {
		if !hasLine(text, line) {
			t.Errorf("no line %s", line)
		}
	}
}

// TestHostileLabels: whatever strangers send, they make no new series. Held: security K 144 for metrics.
func TestHostileLabels(t *testing.T) {
	m := observe.NewMetrics("test")
	one := func(i int) *decision.Exchange {
		word := fmt.Sprintf("hostile-%d", i)
		return &decision.Exchange{
			Request: request(word, "/"+word, word+".test"), Path: "/" + word, ID: word, Listener: &decision.Listener{Name: "https"},
			Status: i % 1200, Err: &decision.Refusal{Reason: decision.Reason(i % 256), Cause: errors.New(word)},
			Claims: &token.Claims{Subject: word}, Upstream: word,
		}
	}
	for i := range 5000 {
		m.Observe(one(i), 0)
	}
	series := strings.Count(metricsOf(t, m), "\n")
	for i := range 5000 {
		m.Observe(one(5000+i), 0)
	}
	text := metricsOf(t, m)
	if after := strings.Count(text, "\n"); after != series || after > 1000 {
		t.Errorf("%d lines of metrics, %d before", after, series)
	}
	if strings.Contains(text, "hostile") {
		t.Error("a stranger's word is a label")
	}
}

// TestReloads: what was refused is named until it is mended, and counted for good.
func TestReloads(t *testing.T) {
	m := observe.NewMetrics("test")
	ready, broken, servers := true, map[string]error{}, []string(nil)
	h := observe.StatusHandler(m, observe.Status{
		Ready: func() bool { return ready }, Broken: func() map[string]error { return broken }, Limits: ratelimit.NewLocal(nil).State,
		Servers: func() []string { return servers },
	})
	told := func(what string, err error) {
		m.Reloaded(what, err)
		if broken[what] = err; err == nil {
			delete(broken, what)
		}
	}
	ask := func(path string) (int, string) {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		return w.Code, w.Body.String()
	}
	if code, text := ask("/readyz"); code != 200 || text != "ready\n" {
		t.Errorf("readyz: %d %q", code, text)
	}
	told("store", nil)
	told("store", errors.New("first line\nsecond line"))
	told("configuration", errors.New("bad"))
	code, text := ask("/readyz")
	if code != 200 || !strings.HasPrefix(text, "ready\nconfiguration: ") || !strings.Contains(text, "first line; second line\n") || strings.Count(text, "\n") != 3 {
		t.Errorf("readyz after failures: %d %q", code, text)
	}
	for _, line := range []string{
		`sallyport_reload_good{what="store"} 0`, `sallyport_reload_failures_total{what="store"} 1`, `sallyport_reloads_total{what="store"} 1`,
	} {
		if !hasLine(metricsOf(t, m), line) {
			t.Errorf("no line %s", line)
		}
	}
	told("store", nil)
	told("configuration", nil)
	if _, text := ask("/readyz"); text != "ready\n" || !hasLine(metricsOf(t, m), `sallyport_reload_good{what="store"} 1`) {
		t.Errorf("readyz when mended: %q", text)
	}
	servers = slices.Repeat([]string{"certificate of listener https: …"}, 102)
	if code, text := ask("/readyz"); code != 200 || !strings.HasPrefix(text, "ready\ncertificate of listener https: …\n") ||
		strings.Count(text, "\n") != 102 || !strings.HasSuffix(text, "\nand 2 more server certificates: sallyport certificates lists all\n") {
		t.Errorf("readyz with server certificates: %d %q", code, text)
	}
	ready = false
	if code, text := ask("/readyz"); code != 503 || !strings.HasPrefix(text, "not ready\n") {
		t.Errorf("readyz while draining: %d %q", code, text)
	}
	if code, text := ask("/healthz"); code != 200 || text != "alive\n" {
		t.Errorf("healthz: %d %q", code, text)
	}
	if code, _ := ask("/metrics"); code != 200 {
		t.Errorf("metrics: %d", code)
	}
	if code, _ := ask("/debug/pprof/"); code != 404 {
		t.Errorf("pprof: %d", code)
	}
	w := httptest.NewRecorder()
	if h.ServeHTTP(w, httptest.NewRequest("POST", "/readyz", nil)); w.Code != 405 {
		t.Errorf("POST: %d", w.Code)
	}
}

// logged is what a log makes of exchanges.
func logged(t testing.TB, text bool, list ...*decision.Exchange) string {
	t.Helper()
	var out bytes.Buffer
	l := observe.NewAccessLog(&out, text, observe.NewMetrics("test"))
	for _, x := range list {
		l.Observe(x, 1500*time.Microsecond)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Run(ctx); err != nil { // it writes the rest and ends
		t.Fatal(err)
	}
	return out.String()
}

// TestAccessLog: a line says who called what, how it was decided and how it ended.
func TestAccessLog(t *testing.T) {
	var line map[string]any
	text := logged(t, false, exchange())
	if err := json.Unmarshal([]byte(text), &line); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	for key, want := range map[string]any{
		"msg": "call", "id": "id-1", "listener": "https", "peer": "192.0.2.7:4711", "method": "GET", "host": "api.test", "path": "/orders/1.0.0/items/7",
		"api": "orders:1.0.0", "resource": "/items/{id}", "decision": "certificate", "alias": "acme", "tier": "Gold",
		"fingerprint": "ab" + strings.Repeat("00", 30) + "cd", "upstream": "http://backend.test", "status": 200.0, "duration_ms": 1.5,
		"bytes_in": 3.0, "bytes_out": 42.0,
	} {
		if line[key] != want {
			t.Errorf("%s: %v, want %v", key, line[key], want)
		}
	}
	for _, name := range []string{"reason", "limit"} {
		if _, ok := line[name]; ok {
			t.Errorf("a %s without a refusal: %v", name, line[name])
		}
	}
	refused := exchange()
	refused.Access, refused.Status, refused.Limit = policy.Decision{}, 400, "header_count"
	refused.Err = &decision.Refusal{Reason: decision.BadRequest, Cause: errors.New("path has a dot segment")}
	refused.Claims = &token.Claims{Subject: "alice", KeyManager: "resident"}
	text = logged(t, true, refused)
	for _, word := range []string{"decision=refused", "reason=bad_request", "limit=header_count", `problem="path has a dot segment"`, "subject=alice", "key_manager=resident", "status=400"} {
		if !strings.Contains(text, word) {
			t.Errorf("no %s in %q", word, text)
		}
	}
}

// TestAccessLogIsSafe: nothing that a client chose breaks a line, fills it, or brings a secret into it.
// Held: security K 139, 140 for the access log.
func TestAccessLogIsSafe(t *testing.T) {
	hostile := "\r\n{\"level\":\"ERROR\"}\x1b[31m\"}\x00\xff\u202e" + strings.Repeat("é", 1<<19)
	x := exchange()
	x.Request = request("GET"+hostile, "/"+hostile, hostile)
	x.Path, x.ID, x.Upstream = "/"+hostile, hostile, hostile
	x.Client = &certstore.Client{Alias: hostile, Tier: hostile}
	x.Claims = &token.Claims{Subject: hostile, KeyManager: hostile}
	x.Err = &decision.Refusal{Reason: decision.Forbidden, Cause: errors.New(hostile)}
	noPath := exchange()
	noPath.Path, noPath.Request = "", request("GET", "*?secret=canary-query", "h")

	for _, text := range []bool{false, true} {
		out := logged(t, text, x, noPath, exchange())
		if n := strings.Count(out, "\n"); n != 3 || !strings.HasSuffix(out, "\n") {
			t.Errorf("text %v: %d lines", text, n)
		}
		if strings.ContainsAny(out, "\r\x1b\x00") || !utf8.ValidString(out) {
			t.Errorf("text %v: a control character gets through", text)
		}
		for line := range strings.Lines(out) {
			if len(line) > 32<<10 {
				t.Errorf("text %v: a line of %d bytes", text, len(line))
			}
			if !text && !json.Valid([]byte(line)) {
				t.Errorf("not JSON: %.200q", line)
			}
		}
		if strings.Contains(out, "canary") {
			t.Errorf("text %v: a secret is in the log", text)
		}
	}
}

// A gate is a destination that takes nothing until it is opened.
type gate struct {
	once sync.Once
	came chan struct{}
	open chan struct{}
	mu   sync.Mutex
	got  bytes.Buffer
}

func (g *gate) Write(b []byte) (int, error) {
	g.once.Do(func() { close(g.came) })
	<-g.open
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.got.Write(b)
}

// TestSlowDestination: a destination that blocks holds up no call; what does not fit is lost, and counted to the line.
func TestSlowDestination(t *testing.T) {
	g := &gate{came: make(chan struct{}), open: make(chan struct{})}
	m := observe.NewMetrics("test")
	l := observe.NewAccessLog(g, false, m)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	calls := 0
	l.Observe(exchange(), 0)
	calls++
	<-g.came
	for range 20_000 { // some 10 MiB
		l.Observe(exchange(), 0)
		calls++
	}
	lost := 0
	for line := range strings.Lines(metricsOf(t, m)) {
		if _, err := fmt.Sscanf(line, "sallyport_access_log_lines_lost_total %d", &lost); err == nil {
			break
		}
	}
	close(g.open)
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if written := bytes.Count(g.got.Bytes(), []byte("\n")); lost == 0 || written+lost != calls {
		t.Errorf("%d calls, %d lines, %d lost", calls, written, lost)
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errors.New("disk full") }

// TestSetOutput: a new destination gets what comes from then on, and one that fails stops nobody.
func TestSetOutput(t *testing.T) {
	var first, second bytes.Buffer
	l := observe.NewAccessLog(&first, false, observe.NewMetrics("test"))
	end := func() error {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		return l.Run(ctx)
	}
	l.Observe(exchange(), 0)
	if err := end(); err != nil {
		t.Fatal(err)
	}
	l.SetOutput(failing{})
	l.Observe(exchange(), 0)
	if err := end(); err == nil {
		t.Error("the last lines are lost without a word")
	}
	l.SetOutput(&second)
	l.Observe(exchange(), 0)
	if err := end(); err != nil {
		t.Fatal(err)
	}
	if a, b := strings.Count(first.String(), "\n"), strings.Count(second.String(), "\n"); a != 1 || b != 1 {
		t.Errorf("%d lines in the first, %d in the second", a, b)
	}
}

// TestRealCalls: calls through a gateway come out in metrics and log as they were, and the token and the query do not.
func TestRealCalls(t *testing.T) {
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, "hello")
	}))
	defer origin.Close()
	u, err := url.Parse(origin.URL)
	if err != nil {
		t.Fatal(err)
	}
	m := observe.NewMetrics("test")
	var out bytes.Buffer
	l := observe.NewAccessLog(&out, false, m)
	g := gateway.New(gateway.Options{Observe: func(x *decision.Exchange) {
		m.Observe(x, x.Took)
		l.Observe(x, x.Took)
	}})
	table, err := decision.NewTable(decision.Settings{Tokens: noTokens{}}, []decision.Route{
		{API: orders, Context: "/orders", Security: policy.Security{Open: true}, Upstream: backend.Upstream{URLs: []*url.URL{u}}},
		{API: certstore.API{Name: "tok", Version: "1"}, Context: "/tok", Security: policy.Security{Token: policy.Optional}, Upstream: backend.Upstream{URLs: []*url.URL{u}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Set(gateway.Parts{Listeners: []decision.Listener{{Name: "plain", Address: "127.0.0.1:0"}}, Routes: table}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for path, body := range map[string]string{"/orders/1.0.0/x?secret=canary-query": "abc", "/tok/1/x": "", "/nothing": ""} {
		r, err := http.NewRequest("POST", "http://"+g.Addresses()["plain"].String()+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer canary-token")
		res, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := l.Run(ctx); err != nil {
		t.Fatal(err)
	}
	text := metricsOf(t, m)
	for _, line := range []string{
		`sallyport_calls_total{api="orders:1.0.0",by="nothing",listener="plain",status="2xx"} 1`,
		`sallyport_body_bytes_total{api="orders:1.0.0",direction="in"} 3`,
		`sallyport_body_bytes_total{api="orders:1.0.0",direction="out"} 5`,
		`sallyport_refusals_total{api="tok:1",reason="invalid_credentials"} 1`,
		`sallyport_refusals_total{api="",reason="no_such_api"} 1`,
	} {
		if !hasLine(text, line) {
			t.Errorf("no line %s", line)
		}
	}
	log := out.String()
	if strings.Count(log, "\n") != 3 || strings.Contains(log, "canary") || !strings.Contains(log, `"token_problem":"token is not valid"`) {
		t.Errorf("logged %s", log)
	}
}

type noTokens struct{}

func (noTokens) Cached(string) (*token.Claims, bool) { return nil, false }

func (noTokens) Still(string, *token.Claims) (*token.Claims, error) { return nil, token.ErrInvalid }

func (noTokens) Verify(context.Context, string) (*token.Claims, error) {
	return nil, token.ErrInvalid
}

// TestExpiry: the end of each certificate is told, the earliest where labels are shared.
func TestExpiry(t *testing.T) {
	m := observe.NewMetrics("test")
	at := time.Unix(2_000_000_000, 0)
	m.WatchExpiry(
		func() int { return 1 },
		func() []observe.CertificateEnd {
			return []observe.CertificateEnd{{Labels: []string{"orders:1.0.0", "acme", "PRODUCTION"}, NotAfter: at}}
		},
		func() []observe.CertificateEnd {
			return []observe.CertificateEnd{
				{Labels: []string{"https", "listener https", "ECDSA"}, NotAfter: at.Add(time.Hour)},
				{Labels: []string{"https", "listener https", "ECDSA"}, NotAfter: at},
			}
		},
		func() (many []observe.CertificateEnd) {
			for i := range 2000 {
				many = append(many, observe.CertificateEnd{Labels: []string{"trust_store", fmt.Sprint(i)}, NotAfter: at.Add(time.Duration(i) * time.Hour)})
			}
			return many
		})
	text := metricsOf(t, m)
	for _, line := range []string{
		`sallyport_client_certificates 1`,
		`sallyport_client_certificate_expiry_timestamp_seconds{alias="acme",api="orders:1.0.0",key_type="PRODUCTION"} 2e+09`,
		`sallyport_server_certificate_expiry_timestamp_seconds{key="ECDSA",listener="https",profile="listener https"} 2e+09`,
		`sallyport_certificate_expiry_timestamp_seconds{kind="trust_store",name="0"} 2e+09`,
	} {
		if !hasLine(text, line) {
			t.Errorf("no line %s", line)
		}
	}
	if n := strings.Count(text, "\nsallyport_certificate_expiry_timestamp_seconds{"); n != 1000 || strings.Contains(text, `name="1000"`) {
		t.Errorf("%d certificates are told of, want the first 1000", n)
	}
}

// TestRenewals: what renews itself has a series, and a time as far as that is known.
func TestRenewals(t *testing.T) {
	m := observe.NewMetrics("test")
	m.WatchRenewals(func() []observe.Renewal {
		return []observe.Renewal{
			{Listener: "https", Profile: "listener https", Due: time.Unix(2_000_000_000, 0)},
			{Listener: "https", Profile: "profile 10.0.0.1 a.test", Trouble: true},
		}
	})
	text := metricsOf(t, m)
	for _, line := range []string{
		`sallyport_server_certificate_renewal_timestamp_seconds{listener="https",profile="listener https"} 2e+09`,
		`sallyport_server_certificate_renewal_trouble{listener="https",profile="listener https"} 0`,
		`sallyport_server_certificate_renewal_trouble{listener="https",profile="profile 10.0.0.1 a.test"} 1`,
	} {
		if !hasLine(text, line) {
			t.Errorf("no line %s", line)
		}
	}
	if strings.Count(text, "renewal_timestamp_seconds{") != 1 {
		t.Error("a time that nobody knows is told")
	}
}
