package observe_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/certstore"
	"sallyport/gateway"
	"sallyport/gateway/backend"
	"sallyport/gateway/clientcert"
	"sallyport/gateway/decision"
	"sallyport/gateway/observe"
	"sallyport/internal/testpki"
	"sallyport/listenerprofiles"
	"sallyport/listenerprofiles/keystore"
	"sallyport/policy"
	"sallyport/policy/ratelimit"
)

// A schema is docs/accesslog.schema.json, of which decoding refuses every keyword that holds does not know.
type schema struct {
	Schema      string              `json:"$schema"`
	Title       string              `json:"title"`
	Description string              `json:"description"`
	Type        string              `json:"type"`
	Required    []string            `json:"required"`
	Additional  *bool               `json:"additionalProperties"`
	Properties  map[string]property `json:"properties"`
}

type property struct {
	Description string   `json:"description"`
	Type        string   `json:"type"`
	Enum        []string `json:"enum"`
	Pattern     string   `json:"pattern"`
	Minimum     *float64 `json:"minimum"`
}

func readSchema(t *testing.T) (s schema) {
	t.Helper()
	data, err := os.ReadFile("../../docs/accesslog.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		t.Fatal(err)
	}
	if s.Type != "object" || s.Additional == nil || *s.Additional {
		t.Fatal("the schema lets other fields pass")
	}
	return s
}

// holds returns what of a line the schema does not allow.
func (s schema) holds(line map[string]any) (wrong []string) {
	for _, name := range s.Required {
		if line[name] == nil {
			wrong = append(wrong, name+" is missing")
		}
	}
	for name, value := range line {
		p, ok := s.Properties[name]
		text, isText := value.(string)
		number, isNumber := value.(float64)
		switch {
		case !ok:
			wrong = append(wrong, name+" is no field")
		case p.Type == "string" && !isText, p.Type != "string" && !isNumber, p.Type == "integer" && number != float64(int64(number)),
			p.Enum != nil && !slices.Contains(p.Enum, text), isText && !regexp.MustCompile(p.Pattern).MatchString(text),
			p.Minimum != nil && number < *p.Minimum:
			wrong = append(wrong, fmt.Sprintf("%s is %v", name, value))
		}
	}
	return wrong
}

// TestSchemaListsEveryField: log.fields may choose from what the schema describes, but for what is always there.
func TestSchemaListsEveryField(t *testing.T) {
	s := readSchema(t)
	described := slices.Sorted(maps.Keys(s.Properties))
	if want := slices.Sorted(slices.Values(append(observe.Fields(), s.Required...))); !slices.Equal(described, want) {
		t.Errorf("described are %q, want %q", described, want)
	}
	for name, p := range s.Properties {
		if p.Description == "" || p.Type == "" {
			t.Errorf("%s is not described", name)
		}
	}
	if wrong := s.holds(map[string]any{"time": "t", "level": "INFO", "msg": "call", "decision": "open", "bytes_in": -1.0, "colour": "red", "status": 1.5}); len(wrong) != 4 {
		t.Errorf("the schema finds %q", wrong)
	}
}

// TestPageKnowsTheFields: docs/operating.md names each field, and the words of decision that the schema has.
func TestPageKnowsTheFields(t *testing.T) {
	data, err := os.ReadFile("../../docs/operating.md")
	if err != nil {
		t.Fatal(err)
	}
	s, page := readSchema(t), string(data)
	for name := range s.Properties {
		if !strings.Contains(page, "`"+name+"`") {
			t.Errorf("the page does not name %s", name)
		}
	}
	_, said, _ := strings.Cut(page, "`decision`: ")
	said, _, _ = strings.Cut(said, "; ")
	var words []string
	for _, word := range regexp.MustCompile("`([a-z]+)`").FindAllStringSubmatch(said, -1) {
		words = append(words, word[1])
	}
	if want := s.Properties["decision"].Enum; !slices.Equal(words, want) {
		t.Errorf("decision is %q on the page, %q in the schema", words, want)
	}
}

// TestLinesOfEachCarrier: whoever carries a call, its line holds to the schema, and says how the client came in, whose
// address it has, and whose time the call took. Of two servers the one that is gone is told apart in the metrics.
func TestLinesOfEachCarrier(t *testing.T) {
	const slow = 20 * time.Millisecond
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		time.Sleep(slow)
		_, _ = io.WriteString(w, "hello")
	}))
	defer origin.Close()
	gone := httptest.NewServer(nil)
	gone.Close()
	dir, ca := t.TempDir(), testpki.NewCA(t, "ca")
	leaf, server := ca.Issue(testpki.Leaf{CommonName: "acme"}), ca.IssueServer("api.test")
	store, trusted := dir+"/own.pem", dir+"/trust.pem"
	for file, data := range map[string][]byte{store: append(server.CertPEM(), server.KeyPEM()...), trusted: ca.CertPEM()} {
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	set, err := listenerprofiles.Load(listenerprofiles.Options{Listener: "tls", Own: listenerprofiles.Settings{
		Name: "listener tls", KeyStore: keystore.Ref{Location: store, Type: "PEM"}, TrustStore: keystore.Ref{Location: trusted, Type: "PEM"},
	}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var up []*url.URL
	for _, s := range []string{gone.URL, origin.URL} {
		u, _ := url.Parse(s)
		up = append(up, u)
	}
	tiers, err := ratelimit.NewTiers(nil)
	if err != nil {
		t.Fatal(err)
	}
	index, err := certstore.NewIndex([]certstore.Client{{API: orders, Alias: "acme", KeyType: certstore.Production, Tier: "Unlimited", Certificate: leaf.Cert, Source: "test"}})
	if err != nil {
		t.Fatal(err)
	}
	clients, _ := decision.NewClients(index, tiers, ratelimit.NewLocal(time.Now))
	table, err := decision.NewTable(decision.Settings{}, []decision.Route{
		{API: orders, Context: "/orders", Security: policy.Security{Certificate: policy.Optional}, Upstream: backend.Upstream{URLs: up}},
		{API: certstore.API{Name: "pub", Version: "1"}, Context: "/pub", Security: policy.Security{Open: true}, Upstream: backend.Upstream{URLs: up[1:]}},
	})
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	m := observe.NewMetrics("test")
	l := observe.NewAccessLog(&out, false, m)
	var calls sync.WaitGroup
	g := gateway.New(gateway.Options{Handshakes: m.HandshakeRefused, Observe: func(x *decision.Exchange) {
		defer calls.Done()
		m.Observe(x, x.Took)
		l.Observe(x, x.Took)
	}})
	m.WatchUse(g.Upstreams, g.Uses)
	door := clientcert.NewDoor(clientcert.DoorConfig{Header: "X-WSO2-CLIENT-CERTIFICATE", Balancers: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	if err := g.Set(gateway.Parts{Clients: clients, Routes: table, Listeners: []decision.Listener{
		{Name: "tls", Address: "127.0.0.1:0", Profiles: set},
		{Name: "plain", Address: "127.0.0.2:0", Door: door},
		{Name: "proxied", Address: "127.0.0.3:0", Proxies: &decision.Proxies{netip.MustParsePrefix("127.0.0.0/8")}},
	}}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()

	roots := x509.NewCertPool()
	roots.AddCert(ca.Cert)
	get := func(c *http.Client, url string, header ...string) {
		t.Helper()
		r, _ := http.NewRequest("GET", url, nil)
		for i := 0; i < len(header); i += 2 {
			r.Header.Add(header[i], header[i+1])
		}
		calls.Add(1)
		res, err := c.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
		res.Body.Close()
		calls.Wait() // so that lines come in order
	}
	for _, h2 := range []bool{false, true} {
		tr := &http.Transport{ForceAttemptHTTP2: h2, TLSClientConfig: &tls.Config{
			RootCAs: roots, ServerName: "api.test", Certificates: []tls.Certificate{leaf.TLS()},
		}}
		for range 3 { // the first by a goroutine, the others by a loop, or all by net/http
			get(&http.Client{Transport: tr}, "https://"+g.Addresses()["tls"].String()+"/orders/1.0.0/x")
		}
		tr.CloseIdleConnections()
	}
	plain := "http://" + g.Addresses()["plain"].String()
	get(http.DefaultClient, plain+"/pub/1/x", "X-Forwarded-For", "203.0.113.9, 198.51.100.7")
	get(http.DefaultClient, plain+"/pub/1/x")
	get(http.DefaultClient, plain+"/nowhere")
	proxied := &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, address)
		if err == nil {
			_, err = io.WriteString(c, "PROXY TCP6 2001:db8::7 2001:db8::1 4711 80\r\n")
		}
		return c, err
	}}
	get(&http.Client{Transport: proxied}, "http://"+g.Addresses()["proxied"].String()+"/nowhere", "X-Forwarded-For", "198.51.100.7")
	proxied.CloseIdleConnections()
	http.DefaultClient.CloseIdleConnections()
	metrics := metricsOf(t, m)
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := l.Run(ctx); err != nil {
		t.Fatal(err)
	}

	s := readSchema(t)
	var lines []map[string]any
	for text := range strings.Lines(out.String()) {
		var line map[string]any
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			t.Fatal(err)
		}
		if wrong := s.holds(line); wrong != nil {
			t.Errorf("%q in %s", wrong, text)
		}
		lines = append(lines, line)
	}
	if len(lines) != 10 {
		t.Fatalf("%d lines: %s", len(lines), out.String())
	}
	retries := 0.0
	for i, line := range lines[:6] {
		protocol := "HTTP/1.1"
		if i >= 3 {
			protocol = "HTTP/2"
		}
		whole, ours, theirs := line["duration_ms"].(float64), line["gateway_ms"].(float64), line["backend_ms"].(float64)
		if line["protocol"] != protocol || line["tls_version"] != "TLSv1.3" || line["tls_cipher"] == nil || line["client"] != "127.0.0.1" ||
			line["upstream"] != origin.URL || line["alias"] != "acme" {
			t.Errorf("line %d: %v", i, line)
		}
		if least := float64(slow.Milliseconds()); theirs < least || whole < theirs || ours > whole-theirs+1 {
			t.Errorf("line %d: %v ms in all, %v ours, %v the server's", i, whole, ours, theirs)
		}
		if n, ok := line["retries"].(float64); ok {
			retries += n
		}
	}
	if retries != 3 {
		t.Errorf("%v retries, want one each second call", retries)
	}
	if lines[6]["client"] != "198.51.100.7" || !strings.HasPrefix(lines[6]["peer"].(string), "127.0.0.1:") || lines[6]["decision"] != "nothing" || lines[6]["tls_version"] != nil {
		t.Errorf("behind a balancer: %v", lines[6])
	}
	if lines[7]["client"] != nil || lines[8]["upstream"] != nil || lines[8]["backend_ms"] != nil {
		t.Errorf("what nobody knows: %v, %v", lines[7], lines[8])
	}
	if lines[9]["client"] != "2001:db8::7" || !strings.HasPrefix(lines[9]["peer"].(string), "127.0.0.1:") {
		t.Errorf("behind a proxy: %v", lines[9])
	}
	for _, want := range []string{
		fmt.Sprintf(`sallyport_upstream_calls_total{status="2xx",upstream="%s"} 8`, origin.URL),
		fmt.Sprintf(`sallyport_upstream_calls_total{status="none",upstream="%s"} 3`, gone.URL),
		fmt.Sprintf(`sallyport_upstream_errors_total{kind="unreachable",upstream="%s"} 3`, gone.URL),
		fmt.Sprintf(`sallyport_upstream_first_byte_seconds_count{upstream="%s"} 8`, origin.URL),
		fmt.Sprintf(`sallyport_upstream_first_byte_seconds_bucket{upstream="%s",le="0.01"} 0`, origin.URL),
		`sallyport_client_calls_total{alias="acme",api="orders:1.0.0",key_type="PRODUCTION"} 6`,
		`sallyport_client_refusals_total{alias="acme",api="orders:1.0.0",key_type="PRODUCTION"} 0`,
	} {
		if !hasLine(metrics, want) {
			t.Errorf("no line %s", want)
		}
	}
	if !strings.Contains(metrics, `sallyport_client_last_seen_timestamp_seconds{alias="acme"`) {
		t.Error("nobody was seen")
	}
}

// TestChosenFields: log.fields says what a line holds and in which order, in both formats.
func TestChosenFields(t *testing.T) {
	var out bytes.Buffer
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, text := range []bool{false, true} {
		l := observe.NewAccessLog(&out, text, observe.NewMetrics("test"), "status", "id", "retries")
		l.Observe(exchange(), 0)
		if err := l.Run(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if got := out.String(); !strings.Contains(got, `"msg":"call","status":200,"id":"id-1"}`) || !strings.HasSuffix(got, " msg=call status=200 id=id-1\n") {
		t.Errorf("got %s", got)
	}
}
