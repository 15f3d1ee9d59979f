package config

import (
	"errors"
	"net/url"
	"reflect"
	"strings"
	"time"

	"sallyport/gateway/control"
	"sallyport/internal/secret"
	"sallyport/policy/ratelimit"
)

// rateLimit reads `rateLimit:`.
func (l *loader) rateLimit(m *mapping) {
	s, _ := m.sub("rateLimit")
	defer s.end()
	out := &l.cfg.RateLimit
	if n, ok := s.take("redis"); ok {
		out.Place = n.Place
		switch n.kind() {
		case "text":
			out.Value.Redis = n.redisURL()
		case "a map":
			out.Value.Redis, out.Keys = n.redis()
		default:
			l.errorf(n.Place, "redis is to be a URL or a map of keys and values, not %s", n.kind())
		}
	}
	out.Value.OnFailure, _ = ask(s, "whenRedisFails", ratelimit.ShareLocally, ratelimit.ParseOnFailure)
	out.Value.Timeout = s.duration("redisTimeout", time.Millisecond, 0)
	const longest = time.Minute
	if e := s.find("redisTimeout"); e != nil && out.Value.Timeout > longest {
		l.errorf(e.Place, "redisTimeout: a call waits for %v at most", longest)
	}
	for _, key := range []string{"whenRedisFails", "redisTimeout"} {
		if e := s.find(key); e != nil && s.find("redis") == nil {
			l.errorf(e.Place, "%s is for redis, and there is none: remove it; calls are counted in this process", key)
		}
	}
}

// redisURL reads the URL of a server. A reference stands for the whole URL, or for its password as it is, without
// escapes. No message holds any part of it.
func (n node) redisURL() ratelimit.Redis {
	written, _ := n.rawText()
	isWhole := strings.HasPrefix(written, "${") && strings.Index(written, "}") == len(written)-1
	if strings.Contains(written, "${") && !isWhole && n.misplaced(written) {
		return ratelimit.Redis{}
	}
	encode := escape
	if isWhole {
		encode = nil
	}
	text, ok := n.expand("redis", encode)
	if !ok {
		return ratelimit.Redis{}
	}
	redis, err := ratelimit.ParseRedis(text)
	if err != nil {
		n.load.errorf(n.Place, "redis: %v", err)
	}
	return redis
}

// misplaced reports a reference outside the password of a URL: another value of it would make another Redis than one
// with another password.
func (n node) misplaced(written string) bool {
	var probes [2]ratelimit.Redis
	for i, value := range []string{"1", "2"} {
		text, err := secret.Source{
			Env:  func(string) (string, bool) { return value, true },
			File: func(string) ([]byte, error) { return []byte(value), nil },
		}.Expand(written)
		if err == nil {
			probes[i], err = ratelimit.ParseRedis(text)
		}
		if err != nil {
			n.load.errorf(n.Place, "redis: %v", err)
			return true
		}
		probes[i].Password = ""
	}
	if !reflect.DeepEqual(probes[0], probes[1]) {
		n.load.errorf(n.Place, "redis: a reference stands for the whole URL or for its password: write the rest out")
		return true
	}
	return false
}

// escape escapes whatever has a meaning in a URL.
func escape(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }

// redis reads the keys of one server or of several, and where they are.
func (n node) redis() (ratelimit.Redis, control.Keys) {
	s := n.mapping("redis")
	defer s.end()
	s.need("addresses", "host:port of the server, or of Sentinels or nodes, as in [127.0.0.1:6379]")
	before := len(n.load.errs)
	out := ratelimit.Redis{Addresses: s.redisAddresses()}
	out.Mode, _ = ask(s, "mode", ratelimit.Single, ratelimit.ParseMode)
	out.Master = s.text("master").Value
	out.Username = s.text("username").Value
	out.Password = s.secret("password")
	out.TLS = s.boolean("tls")
	out.CAFile = s.path("caFile")
	if out.CAFile != "" && s.find("tls") == nil {
		out.TLS = true
	}
	out.Database = s.integer("database", 0, ratelimit.MaxDatabase, 0)
	if len(n.load.errs) > before || s.find("addresses") == nil {
		return out, s.keys() // a value that could not be read would be missed by others
	}
	if fault := (*ratelimit.RedisError)(nil); errors.As(out.Validate(), &fault) {
		at := n.Place
		if e := s.find(fault.Key); e != nil {
			at = e.value.Place
		}
		n.load.errorf(at, "redis: %v", fault)
	}
	return out, s.keys()
}

// redisAddresses reads the list under `addresses`.
func (m *mapping) redisAddresses() []string {
	m.notEmpty("addresses", "name at least one, as in 127.0.0.1:6379")
	values, _ := m.texts("addresses")
	for _, v := range values {
		if err := (ratelimit.Redis{Addresses: []string{v.Value}}).Validate(); err != nil {
			m.load.errorf(v.Place, "addresses: %v", err)
		}
	}
	return plain(values)
}
