package quickstart

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"sallyport/certstore"
	"sallyport/internal/regularfile"
)

// tokenLife is how long a token lasts that the running issuer gives.
const tokenLife = time.Hour

// maxForm bounds the token request's body, in bytes.
const maxForm = 16 << 10

// Issuer returns the demo token issuer. GET /oauth2/jwks answers its key set; POST /oauth2/token answers the client
// credentials grant (RFC 6749 §4.4) of the demo's client, whose name is "quickstart" and whose secret is in
// secrets/issuer-client.secret, with an access token of one hour. Errors are JSON as in RFC 6749 §5.2.
func (d *Demo) Issuer() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/oauth2/jwks", d.issuer.serveKeys)
	mux.HandleFunc("/oauth2/token", d.issuer.serveToken)
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusNotFound, tokenError{Error: "not_found", Description: "there are /oauth2/jwks and /oauth2/token"})
	})
	return mux
}

type issuer struct {
	key    *tokenKey
	keys   []byte            // jwks.json
	secret [sha256.Size]byte // of the client's secret: compared in constant time, whatever the lengths
	now    func() time.Time
}

func (f *folder) openIssuer(now func() time.Time) (*issuer, error) {
	data, err := regularfile.Read(f.path(fileIssuerKey), maxFile)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", f.shownPath(fileIssuerKey), err)
	}
	key, err := parseTokenKey(data)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrUsage, f.shownPath(fileIssuerKey), err)
	}
	keys, err := regularfile.Read(f.path(fileJWKS), maxFile)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", f.shownPath(fileJWKS), err)
	}
	if !bytes.Contains(keys, []byte(strconv.Quote(key.id))) {
		return nil, fmt.Errorf("%w: %s does not hold the key of %s: put it back, or remove the folder and run quickstart again",
			ErrUsage, f.shownPath(fileJWKS), f.shownPath(fileIssuerKey))
	}
	secret, err := f.readSecret(fileIssuerSecret)
	if err != nil {
		return nil, err
	}
	return &issuer{key: key, keys: keys, secret: sha256.Sum256([]byte(secret)), now: now}, nil
}

func (i *issuer) serveKeys(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		writeJSON(w, http.StatusMethodNotAllowed, tokenError{Error: "invalid_request", Description: "the key set is read with GET"})
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Write(i.keys)
}

// A tokenAnswer is RFC 6749 §5.1's.
type tokenAnswer struct {
	AccessToken string `json:"access_token"`
	TokenType   string `json:"token_type"`
	ExpiresIn   int    `json:"expires_in"` // seconds
	Scope       string `json:"scope"`
}

// A tokenError is RFC 6749 §5.2's.
type tokenError struct {
	status      int
	Error       string `json:"error"`
	Description string `json:"error_description"`
}

func (i *issuer) serveToken(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Pragma", "no-cache")
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		writeJSON(w, http.StatusMethodNotAllowed, tokenError{Error: "invalid_request", Description: "tokens are asked for with POST"})
		return
	}
	scope, refused := i.grant(w, r)
	if refused != nil {
		if refused.status == http.StatusUnauthorized {
			w.Header().Set("WWW-Authenticate", `Basic realm="Sallyport quickstart"`)
		}
		writeJSON(w, refused.status, refused)
		return
	}
	now := i.now()
	token, err := i.key.sign(scope, now, now.Add(tokenLife))
	if err != nil {
		writeJSON(w, http.StatusInternalServerError, tokenError{Error: "server_error", Description: "the token could not be signed"})
		return
	}
	writeJSON(w, http.StatusOK, tokenAnswer{
		AccessToken: token, TokenType: "Bearer", ExpiresIn: int(tokenLife / time.Second), Scope: scope,
	})
}

// grant decides about a token request and returns the scope to give.
func (i *issuer) grant(w http.ResponseWriter, r *http.Request) (scope string, refused *tokenError) {
	form, err := tokenForm(w, r)
	if err != nil {
		return "", &tokenError{http.StatusBadRequest, "invalid_request", err.Error()}
	}
	name, secret, err := clientCredentials(r, form)
	if err != nil {
		return "", &tokenError{http.StatusBadRequest, "invalid_request", err.Error()}
	}
	sum := sha256.Sum256([]byte(secret))
	if subtle.ConstantTimeCompare(sum[:], i.secret[:]) != 1 || name != issuerClient {
		return "", &tokenError{http.StatusUnauthorized, "invalid_client", "the client's name or secret is wrong"}
	}
	switch form.Get("grant_type") {
	case "client_credentials":
	case "":
		return "", &tokenError{http.StatusBadRequest, "invalid_request", "grant_type is missing"}
	default:
		return "", &tokenError{http.StatusBadRequest, "unsupported_grant_type", "only client_credentials is known"}
	}
	scope = form.Get("scope")
	if scope == "" {
		return defaultScope, nil
	}
	if !validScope(scope) {
		return "", &tokenError{http.StatusBadRequest, "invalid_scope", "scope is not a list of words with single spaces between, or too long"}
	}
	return scope, nil
}

// tokenForm reads the parameters. They come in the body, each at most once (RFC 6749 §3.2): a URL ends up in logs.
func tokenForm(w http.ResponseWriter, r *http.Request) (url.Values, error) {
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != "application/x-www-form-urlencoded" {
		return nil, errors.New("the body has to be application/x-www-form-urlencoded")
	}
	if r.URL.RawQuery != "" {
		return nil, errors.New("parameters belong in the body, not in the URL")
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		return nil, errors.New("the body is not a form, or too large")
	}
	for _, values := range r.PostForm {
		if len(values) > 1 {
			return nil, errors.New("a parameter is repeated")
		}
	}
	return r.PostForm, nil
}

// clientCredentials finds the client's name and secret in one place (RFC 6749 §2.3): the Basic header, whose halves
// are form-encoded, or the body.
func clientCredentials(r *http.Request, form url.Values) (name, secret string, err error) {
	inBody := form.Has("client_secret")
	if len(r.Header.Values("Authorization")) == 0 {
		return form.Get("client_id"), form.Get("client_secret"), nil
	}
	if inBody || len(r.Header.Values("Authorization")) > 1 {
		return "", "", errors.New("the client is authenticated twice")
	}
	user, password, ok := r.BasicAuth()
	if !ok {
		return "", "", nil // another scheme: an unknown client
	}
	name, nameErr := url.QueryUnescape(user)
	secret, secretErr := url.QueryUnescape(password)
	if nameErr != nil || secretErr != nil {
		return "", "", errors.New("the client's name or secret is not form-encoded")
	}
	if form.Has("client_id") && form.Get("client_id") != name {
		return "", "", errors.New("client_id is not the authenticated client")
	}
	return name, secret, nil
}

// validScope holds scope to RFC 6749 §3.3 and 1,024 bytes.
func validScope(scope string) bool {
	if len(scope) > 1024 {
		return false
	}
	for word := range strings.SplitSeq(scope, " ") {
		if certstore.CheckScope(word) != nil {
			return false
		}
	}
	return true
}
