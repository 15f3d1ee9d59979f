package quickstart_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/go-cmp/cmp"
)

// An echo is the backend's answer.
type echo struct {
	Method    string
	Path      string
	Query     string
	Headers   map[string][]string
	BodyBytes int64 `json:"body_bytes"`
	Count     uint64
}

func TestBackend(t *testing.T) {
	d := makeDemo(t, newDir(t), 0)
	server := httptest.NewServer(d.Backend())
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")

	request, err := http.NewRequestWithContext(t.Context(), "PATCH", server.URL, io.MultiReader(strings.NewReader("hello "), strings.NewReader("world")))
	if err != nil {
		t.Fatal(err)
	}
	request.URL.Opaque = "/a%2Fb/%7e;c?x=%20&y=<&x=?"
	request.Header = http.Header{"X-Twice": {"1", "2"}, "User-Agent": {"test"}, "Accept-Encoding": {"identity"}}
	response, err := server.Client().Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var got echo
	if err := json.NewDecoder(response.Body).Decode(&got); err != nil {
		t.Fatal(err)
	}
	want := echo{
		Method: "PATCH", Path: "/a%2Fb/%7e;c", Query: "x=%20&y=<&x=?", BodyBytes: 11, Count: 1,
		Headers: map[string][]string{"X-Twice": {"1", "2"}, "User-Agent": {"test"}, "Accept-Encoding": {"identity"}, "Host": {host}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("answer (-want +got):\n%s", diff)
	}
	if kind := response.Header.Get("Content-Type"); kind != "application/json" {
		t.Errorf("Content-Type is %s", kind)
	}

	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() { d.Backend().ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil)) })
	}
	wg.Wait()
	recorder := httptest.NewRecorder()
	d.Backend().ServeHTTP(recorder, httptest.NewRequest("GET", "/", nil))
	if !strings.Contains(recorder.Body.String(), `"count":22}`) {
		t.Errorf("after 21 calls: %s", recorder.Body)
	}
}

func TestBackendTellsABrokenBody(t *testing.T) {
	d := makeDemo(t, newDir(t), 0)
	recorder := httptest.NewRecorder()
	d.Backend().ServeHTTP(recorder, httptest.NewRequest("POST", "/", io.MultiReader(strings.NewReader("half"), broken{})))
	if recorder.Code != http.StatusBadRequest || !json.Valid(recorder.Body.Bytes()) {
		t.Errorf("%d %s", recorder.Code, recorder.Body)
	}
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestIssuerKeys(t *testing.T) {
	dir := newDir(t)
	d := makeDemo(t, dir, 0)
	recorder := httptest.NewRecorder()
	d.Issuer().ServeHTTP(recorder, httptest.NewRequest("GET", "/oauth2/jwks", nil))
	if recorder.Code != 200 || recorder.Body.String() != string(read(t, dir, "jwks.json")) || recorder.Header().Get("Content-Type") != "application/json" {
		t.Errorf("%d %v %s", recorder.Code, recorder.Header(), recorder.Body)
	}
}

func TestIssuerTokens(t *testing.T) {
	dir := newDir(t)
	makeDemo(t, dir, 0)
	d := makeDemo(t, dir, 0) // used again: the keys come from the folder
	secret := line(t, dir, "secrets/issuer-client.secret")
	grant := url.Values{"grant_type": {"client_credentials"}}
	with := func(more ...string) string {
		form := url.Values{"grant_type": {"client_credentials"}}
		for i := 0; i < len(more); i += 2 {
			form.Add(more[i], more[i+1])
		}
		return form.Encode()
	}
	const form = "application/x-www-form-urlencoded"
	basic := func(r *http.Request) { r.SetBasicAuth("quickstart", secret) }
	tests := map[string]struct {
		method, target, kind, body string
		change                     func(*http.Request)
		status                     int
		err                        string // or the scope, if the status is 200
	}{
		"basic":                {"POST", "/oauth2/token", form, grant.Encode(), basic, 200, "orders:read orders:write"},
		"in the body":          {"POST", "/oauth2/token", form + "; charset=utf-8", with("client_id", "quickstart", "client_secret", secret), nil, 200, "orders:read orders:write"},
		"a scope":              {"POST", "/oauth2/token", form, with("scope", "a b"), basic, 200, "a b"},
		"name twice, the same": {"POST", "/oauth2/token", form, with("client_id", "quickstart"), basic, 200, "orders:read orders:write"},

		"no client":             {"POST", "/oauth2/token", form, grant.Encode(), nil, 401, "invalid_client"},
		"a wrong secret":        {"POST", "/oauth2/token", form, grant.Encode(), func(r *http.Request) { r.SetBasicAuth("quickstart", secret+"x") }, 401, "invalid_client"},
		"no secret":             {"POST", "/oauth2/token", form, with("client_id", "quickstart"), nil, 401, "invalid_client"},
		"another client":        {"POST", "/oauth2/token", form, grant.Encode(), func(r *http.Request) { r.SetBasicAuth("admin", secret) }, 401, "invalid_client"},
		"another scheme":        {"POST", "/oauth2/token", form, grant.Encode(), func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+secret) }, 401, "invalid_client"},
		"authenticated twice":   {"POST", "/oauth2/token", form, with("client_id", "quickstart", "client_secret", secret), basic, 400, "invalid_request"},
		"two headers":           {"POST", "/oauth2/token", form, grant.Encode(), func(r *http.Request) { basic(r); r.Header.Add("Authorization", "Basic x") }, 400, "invalid_request"},
		"two names":             {"POST", "/oauth2/token", form, with("client_id", "admin"), basic, 400, "invalid_request"},
		"no grant":              {"POST", "/oauth2/token", form, "", basic, 400, "invalid_request"},
		"another grant":         {"POST", "/oauth2/token", form, "grant_type=password", basic, 400, "unsupported_grant_type"},
		"a repeated parameter":  {"POST", "/oauth2/token", form, with("scope", "a", "scope", "b"), basic, 400, "invalid_request"},
		"a bad scope":           {"POST", "/oauth2/token", form, with("scope", `a "b"`), basic, 400, "invalid_scope"},
		"an empty word":         {"POST", "/oauth2/token", form, with("scope", "a  b"), basic, 400, "invalid_scope"},
		"a long scope":          {"POST", "/oauth2/token", form, with("scope", strings.Repeat("a", 1025)), basic, 400, "invalid_scope"},
		"JSON":                  {"POST", "/oauth2/token", "application/json", `{"grant_type":"client_credentials"}`, basic, 400, "invalid_request"},
		"no type":               {"POST", "/oauth2/token", "", grant.Encode(), basic, 400, "invalid_request"},
		"in the URL":            {"POST", "/oauth2/token?" + grant.Encode(), form, "", basic, 400, "invalid_request"},
		"too large":             {"POST", "/oauth2/token", form, with("x", strings.Repeat("a", 1<<20)), basic, 400, "invalid_request"},
		"a broken escape":       {"POST", "/oauth2/token", form, "grant_type=%zz", basic, 400, "invalid_request"},
		"a broken basic escape": {"POST", "/oauth2/token", form, grant.Encode(), func(r *http.Request) { r.SetBasicAuth("quickstart", "%zz") }, 400, "invalid_request"},
		"GET":                   {"GET", "/oauth2/token", "", "", basic, 405, "invalid_request"},
		"keys by POST":          {"POST", "/oauth2/jwks", form, "", nil, 405, "invalid_request"},
		"elsewhere":             {"POST", "/oauth2/authorize", form, grant.Encode(), basic, 404, "not_found"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest(test.method, test.target, strings.NewReader(test.body))
			if test.kind != "" {
				r.Header.Set("Content-Type", test.kind)
			}
			if test.change != nil {
				test.change(r)
			}
			w := httptest.NewRecorder()
			d.Issuer().ServeHTTP(w, r)
			var got struct {
				AccessToken string `json:"access_token"`
				TokenType   string `json:"token_type"`
				ExpiresIn   int    `json:"expires_in"`
				Scope       string
				Error       string
				Description string `json:"error_description"`
			}
			if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Header().Get("Content-Type") != "application/json" {
				t.Fatalf("%v: %s", err, w.Body)
			}
			if w.Code != test.status {
				t.Fatalf("status %d, want %d: %s", w.Code, test.status, w.Body)
			}
			if strings.Contains(w.Body.String(), secret) {
				t.Error("the secret stands in the answer")
			}
			if challenge := w.Header().Get("WWW-Authenticate"); (challenge != "") != (w.Code == 401) {
				t.Errorf("WWW-Authenticate: %q", challenge)
			}
			if allow := w.Header().Get("Allow"); (allow != "") != (w.Code == 405) {
				t.Errorf("Allow: %q", allow)
			}
			if test.status != 200 {
				if got.Error != test.err || got.Description == "" {
					t.Errorf("error %q (%s), want %q", got.Error, got.Description, test.err)
				}
				return
			}
			if got.TokenType != "Bearer" || got.ExpiresIn != 3600 || got.Scope != test.err || w.Header().Get("Cache-Control") != "no-store" {
				t.Errorf("answer %s with %v", w.Body, w.Header())
			}
			claims := jwt.MapClaims{}
			if _, err := jwt.ParseWithClaims(got.AccessToken, claims, keyFunc(read(t, dir, "jwks.json")), jwt.WithValidMethods([]string{"RS256"}), jwt.WithTimeFunc(clock)); err != nil {
				t.Error(err)
			}
			if end, err := claims.GetExpirationTime(); err != nil || !end.Equal(today.Add(time.Hour)) || claims["scope"] != test.err {
				t.Errorf("claims %v", claims)
			}
		})
	}
}
