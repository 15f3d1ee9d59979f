// Package config turns sallyport.yaml into a typed and validated Config.
package config

import (
	"path/filepath"
	"time"

	"sallyport/certstore"
)

// A Config is the validated content of sallyport.yaml and of the files it names, with defaults filled in. Paths are
// absolute. It never changes: a reload makes a new one.
type Config struct {
	File string // the YAML file, absolute

	Listeners   []Listener // at least one; names and addresses are unique
	MutualSSL   MutualSSL
	Store       string       // a URL as certstore.Open takes it, its path absolute; it may hold a password: keep it out of logs
	StorePos    Pos          // of the store's value; line and column are 0 if the file leaves it out
	Tiers       []Tier       // the configured ones, without the built-in ones
	KeyManagers []KeyManager // names and issuers unique
	APIs        []API        // of the file itself and of the API files, in the order they are named; name:version unique
	Status      *Status      // nil: no status listener
	Log         Log
	Limits      Limits
	// DrainTimeout is how long a stop waits for calls under way. Default 30 s; an explicit 0 means not at all.
	DrainTimeout time.Duration

	// Files are all files that were read, absolute and sorted: YAML, API files, client certificates, secret files. They
	// and the matches of Globs are to be watched. Keystores, key managers' files and listenerprofiles.xml are not among
	// them: they are watched by whoever reads them.
	Files []string
	Globs []string // the patterns of `apis:`, absolute, in the order of the file

	// Warnings are settings that are valid but suspicious, in the order of the files.
	Warnings Errors

	digest  [32]byte
	sums    map[string][32]byte // of Files
	matched []string            // by Globs
}

// Digest is the SHA-256 of all content that was read: YAML, API files, client certificates, and the values of secrets.
// Configs with equal digests are the same, so that a reload can tell that nothing changed. It covers secrets, which may
// be short: compare it, but do not log it.
func (c *Config) Digest() [32]byte { return c.digest }

// Status is the listener of /healthz, /readyz and /metrics.
type Status struct {
	Pos
	Address string // host:port
}

// Log is what is logged, how, and where.
type Log struct {
	Pos
	Level  string // "debug", "info" (default), "warn" or "error"
	Format string // "json" (default) or "text"
	Access string // of the access log: "stdout" (default), "off", or the absolute path of a file
}

// config reads the top level. Sections that others refer to come first.
func (l *loader) config(m *mapping) {
	c := l.cfg
	c.MutualSSL = l.mutualSSL(m)
	m.need("listeners", "name at least one, as in - {name: http, address: 127.0.0.1:8280}")
	m.notEmpty("listeners", "name at least one")
	for _, n := range m.nodes("listeners") {
		c.Listeners = append(c.Listeners, l.listener(n))
	}
	c.Store, c.StorePos = l.store(m)
	for _, n := range m.nodes("tiers") {
		c.Tiers = append(c.Tiers, l.tier(n))
	}
	for _, n := range m.nodes("keyManagers") {
		c.KeyManagers = append(c.KeyManagers, l.keyManager(n))
	}
	l.rateLimit(m)
	m.refuse("admin", "is not built yet: remove it")
	c.Status = l.status(m)
	c.Log = l.log(m)
	c.Limits = l.limits(m)
	c.DrainTimeout = m.duration("drainTimeout", 0, 30*time.Second)
	l.apis(m)
	m.end()
	l.checkPlaces()
}

// store returns the store's URL with an absolute path. The value may hold a password, so that no message quotes it.
func (l *loader) store(m *mapping) (string, Pos) {
	t := m.text("store")
	if !t.OK {
		t = text{Pos{File: m.from.name}, "sqlite:sallyport.db", true}
	}
	url, err := certstore.ParseURL(t.Value)
	if err != nil {
		l.errorf(t.Pos, "store: %v", err)
	}
	return url.From(filepath.Dir(m.from.path)).String(), t.Pos
}

// rateLimit reads `rateLimit:`, none of which is built yet.
func (l *loader) rateLimit(m *mapping) {
	s, _ := m.sub("rateLimit")
	defer s.end()
	s.word("whenRedisFails", "", "local", "allow", "deny")
	if e := s.find("whenRedisFails"); e != nil && s.find("redis") == nil {
		l.errorf(e.Pos, "whenRedisFails is for redis, and there is none: remove it; calls are counted in this process")
	}
	s.refuse("redis", "is not built yet: remove it, and calls are counted in this process")
}

func (l *loader) status(m *mapping) *Status {
	s, given := m.sub("status")
	if !given {
		return nil
	}
	defer s.end()
	address := s.address()
	if address.OK {
		for _, listener := range l.cfg.Listeners {
			if sameAddress(listener.Address, address.Value) {
				l.errorf(address.Pos,
					"address %s is that of listener %s: give status its own", address.Value, listener.Name)
			}
		}
	}
	return &Status{s.Pos, address.Value}
}

func (l *loader) log(m *mapping) Log {
	s, _ := m.sub("log")
	defer s.end()
	log := Log{
		Pos:    s.Pos,
		Level:  s.word("level", "info", "debug", "info", "warn", "error").Value,
		Format: s.word("format", "json", "json", "text").Value,
		Access: "stdout",
	}
	if t := s.text("access"); t.OK {
		log.Access = t.Value
		if t.Value != "stdout" && t.Value != "off" {
			log.Access = s.from.resolve(t.Value)
		}
	}
	return log
}
