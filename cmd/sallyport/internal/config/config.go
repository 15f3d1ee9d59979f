// Package config turns sallyport.yaml into a validated Config.
package config

import (
	"cmp"
	"crypto/sha256"
	"path/filepath"
	"time"

	"sallyport/certstore"
	"sallyport/gateway"
	"sallyport/gateway/control"
	"sallyport/gateway/observe"
	"sallyport/internal/regularfile"
)

// A Config is the validated content of sallyport.yaml and of the files it names, with defaults filled in. Paths are
// absolute. It never changes: a reload makes a new one.
type Config struct {
	// Spec is what a running gateway follows. Its Files and Globs leave out keystores, key managers' files and
	// listenerprofiles.xml: they are watched by whoever reads them.
	control.Spec
	Startup

	sums    map[string][sha256.Size]byte // of Files
	matched []string                     // by Globs
	toServe bool                         // it was loaded by LoadToServe
	name    string                       // of its file, as messages show it
	unread  bool                         // a file could not be read, which may be there by now
	access  control.Place                // of log.access
	cluster control.Place                // of gateway.config
}

// AccessPlace is where the access log's file is named, the zero Place if none is.
func (c *Config) AccessPlace() control.Place { return c.access }

// Startup is what takes effect with the next start only.
type Startup struct {
	Status          string // host:port of /healthz, /readyz and /metrics; "": nowhere
	Log             Log
	Limits          gateway.Limits
	LameDuckTimeout time.Duration // for how long a stop goes on to accept connections before it drains
	// DrainTimeout is how long a stop waits for calls under way. Default 30 s; an explicit 0 means not at all.
	DrainTimeout time.Duration
	Cluster      control.Cluster // where files of the store are kept
}

// Log is what is logged, how, and where.
type Log struct {
	Level  string   // "debug", "info" (default), "warn" or "error"
	Format string   // "json", "text", or "" for text on a terminal and JSON elsewhere
	Access string   // of the access log: "stdout" (default), "off", or the absolute path of a file
	Fields []string // of the access log; none: all
}

// byKey returns the settings by their keys.
func (s Startup) byKey() map[string]any {
	return map[string]any{
		"status": s.Status, "log": s.Log, "limits": s.Limits, "lameDuckTimeout": s.LameDuckTimeout, "drainTimeout": s.DrainTimeout,
		"gateway.config": s.Cluster,
	}
}

// FileClients returns the certificates that API files register. The error is control.Problems.
func (c *Config) FileClients() ([]certstore.Client, error) {
	if len(c.Problems) > 0 {
		return nil, c.Problems
	}
	return c.Clients, nil
}

// config reads the top level. Sections that others refer to come first.
func (l *loader) config(m *mapping) {
	c := l.cfg
	l.gateway(m)
	l.mutualSSL(m)
	m.need("listeners", "name at least one, as in - {name: http, address: 127.0.0.1:8280}")
	m.notEmpty("listeners", "name at least one")
	for _, n := range m.nodes("listeners") {
		c.Listeners = append(c.Listeners, l.listener(n))
	}
	c.Store = l.store(m)
	c.ACME = l.acme(m)
	l.checkClusterStore()
	l.readTiers(m)
	for _, n := range m.nodes("keyManagers") {
		c.KeyManagers = append(c.KeyManagers, l.keyManager(n))
	}
	l.rateLimit(m)
	m.refuse("admin", "is not built yet: remove it")
	c.Status = l.status(m)
	c.Log = l.log(m)
	c.Limits = l.limits(m)
	c.LameDuckTimeout = m.duration("lameDuckTimeout", 0, 0)
	c.DrainTimeout = m.duration("drainTimeout", 0, 30*time.Second)
	l.apis(m)
	m.end()
}

// store reads `store:`, a URL or a map of it and what stands beside it. Line and column of its place are 0 if the file
// leaves it out. The path of a file is made absolute. The value may hold a password, so that no message quotes it.
func (l *loader) store(m *mapping) (out control.Placed[certstore.Source]) {
	n, given := m.take("store")
	out.Place = control.Place{File: m.from.name}
	t := text{out.Place, "sqlite:sallyport.db", true}
	switch {
	case given && n.kind() == "a map":
		out.Place = n.Place
		t = l.storeMap(m, &out)
	case given:
		t = n.text("store")
		out.Place = t.Place
	}
	if !t.OK {
		return out
	}
	url, err := certstore.ParseURL(t.Value)
	if err != nil {
		l.errorf(t.Place, "store: %v", err)
		return out
	}
	out.Value.URL = t.Value
	if err := out.Value.Check(); err != nil {
		l.errorf(out.Place, "store: %v", err)
	}
	url = url.From(filepath.Dir(m.from.path))
	for _, key := range []string{"maxAge", "snapshot"} {
		if at, ok := out.Keys[key]; ok && url.InMemory() {
			l.errorf(at, "%s is for a store that may be away, and this one is in memory: remove it", key)
		}
	}
	out.Value.URL = url.String()
	out.Value.Password = cmp.Or(out.Value.Password, url.Password())
	return out
}

// leastAge is the least maxAge: a look at a store each half second may wait for 5 s, and may fail once.
const leastAge = 10 * time.Second

// storeMap reads what stands beside the URL, which it returns.
func (l *loader) storeMap(m *mapping, out *control.Placed[certstore.Source]) text {
	s, _ := m.sub("store")
	defer s.end()
	s.need("url", "where the database is, as in postgres://USER@HOST/DATABASE")
	t := s.text("url")
	out.Value.Password = s.secret("password")
	out.Value.CAFile = s.path("caFile")
	l.cfg.MaxAge = s.duration("maxAge", 0, 0)
	if e := s.find("maxAge"); e != nil && 0 < l.cfg.MaxAge && l.cfg.MaxAge < leastAge {
		l.errorf(e.Place, "maxAge is %s: it is to be at least %s, as a store may take that long to answer, or 0 for ever", l.cfg.MaxAge, leastAge)
	}
	l.cfg.Snapshot = s.path("snapshot")
	out.Keys = s.keys()
	return t
}

// status reads the address under `status`.
func (l *loader) status(m *mapping) string {
	s, given := m.sub("status")
	if !given {
		return ""
	}
	defer s.end()
	address := s.address()
	if address.OK {
		for _, listener := range l.cfg.Listeners {
			if sameAddress(listener.Address, address.Value) {
				l.errorf(address.Place, "address %s takes the port of listener %s (%s): give status its own",
					address.Value, listener.Name, listener.Address)
			}
		}
	}
	return address.Value
}

func (l *loader) log(m *mapping) Log {
	s, _ := m.sub("log")
	defer s.end()
	log := Log{
		Level:  s.word("level", "info", "debug", "info", "warn", "error").Value,
		Format: s.word("format", "", "json", "text").Value,
		Access: "stdout",
	}
	if t := s.text("access"); t.OK {
		log.Access = t.Value
		if t.Value != "stdout" && t.Value != "off" {
			log.Access, l.cfg.access = s.from.resolve(t.Value), t.Place
			if err := regularfile.CheckAppend(log.Access); err != nil {
				l.errorf(t.Place, "access %s: %v", log.Access, err)
			}
		}
	}
	s.notEmpty("fields", "name at least one, or remove it for all of them")
	log.Fields = askEach(s, "fields", observe.ParseFields)
	return log
}
