package config

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sallyport/gateway/control"
	"sallyport/internal/regularfile"
	"sallyport/policy/ratelimit"
	"sallyport/policy/rule"
)

// Load reads file and the API files, certificates and secrets that it names. The error is control.Problems,
// with everything that is wrong, or why file can't be read.
func Load(file string) (*Config, error) { return load(file, "", false) }

// LoadToServe is Load for a gateway that serves: what is wrong with an API file is no error, but the Problems of its
// Unit.
func LoadToServe(file string) (*Config, error) { return load(file, "", true) }

// load reads the files of gateway.config.folder in the folder instead, unless that is "".
func load(file, instead string, toServe bool) (*Config, error) {
	from, data, err := open(file)
	if err != nil {
		return nil, err
	}
	var matched []string
	l := newLoader(from, data, outside{regularfile.Read, glob, os.LookupEnv})
	l.outside.glob = func(pattern string) ([]string, error) {
		found, err := glob(pattern)
		matched = append(matched, found...)
		return found, err
	}
	l.instead, l.toServe = instead, toServe
	cfg, err := l.load(from, data)
	if err != nil {
		return nil, err
	}
	cfg.matched, cfg.toServe, cfg.name = matched, toServe, file
	return cfg, nil
}

// open reads the configuration file itself.
func open(file string) (*source, []byte, error) {
	abs, err := filepath.Abs(file)
	if err != nil {
		return nil, nil, fmt.Errorf("configuration %s: %w", file, err)
	}
	data, err := regularfile.Read(abs, maxFile)
	if err != nil {
		return nil, nil, fmt.Errorf("configuration %s: %w", file, err)
	}
	return &source{name: file, path: abs}, data, nil
}

// StatusAddress returns host:port at which this machine reaches the status listener that file names, 127.0.0.1 for one on
// every address, or "" if it names none. It looks at nothing else that is wrong in file, and opens nothing that file
// names: a gateway that refuses a change serves on, and can be asked. The error is as Load's.
func StatusAddress(file string) (string, error) {
	from, data, err := open(file)
	if err != nil {
		return "", err
	}
	l := &loader{cfg: &Config{}, yaml: []string{file}}
	address := ""
	if root, ok := l.document(from, data); ok {
		address = l.status(root.mapping("the configuration"))
	}
	if len(l.errs) > 0 {
		return "", l.sorted(l.errs)
	}
	if host, port, err := net.SplitHostPort(address); err == nil && isEverywhere(host) {
		address = net.JoinHostPort("127.0.0.1", port)
	}
	return address, nil
}

// Reload loads c's file anew. It returns c itself, which costs less, while nothing that c was read from has changed.
func (c *Config) Reload() (*Config, error) {
	if !c.changed() {
		return c, nil
	}
	return load(c.name, "", c.toServe)
}

// changed reports whether a file that was read has changed, or a pattern matches other files. It returns true when in
// doubt.
func (c *Config) changed() bool {
	if c.unread {
		return true
	}
	for file, sum := range c.sums {
		if data, err := regularfile.Read(file, maxFile); err != nil || sha256.Sum256(data) != sum {
			return true
		}
	}
	var matched []string
	for _, pattern := range c.Globs {
		found, err := glob(pattern)
		if err != nil {
			return true
		}
		matched = append(matched, found...)
	}
	return !slices.Equal(matched, c.matched)
}

// Find returns the configuration file to use: explicit if it isn't empty, else the first existing one of
// sallyport.yaml and /etc/sallyport/sallyport.yaml. The error names both.
func Find(explicit string) (string, error) {
	if explicit != "" {
		return explicit, nil
	}
	places := []string{"sallyport.yaml", "/etc/sallyport/sallyport.yaml"}
	for _, place := range places {
		// A file that exists is the one meant, even if it cannot be read.
		if _, err := os.Stat(place); !errors.Is(err, fs.ErrNotExist) {
			return place, nil
		}
	}
	return "", fmt.Errorf("no configuration: there is no %s; name one with -c", strings.Join(places, " and no "))
}

// outside is everything that a Config is read from, except its first file.
type outside struct {
	readFile  func(path string, limit int64) ([]byte, error) // path is absolute
	glob      func(pattern string) ([]string, error)         // sorted, absolute
	lookupEnv func(name string) (string, bool)
}

// glob is filepath.Glob without hidden files, such as editors' locks, as in a shell.
func glob(pattern string) ([]string, error) {
	found, err := filepath.Glob(pattern)
	if err != nil {
		return nil, err
	}
	if !strings.HasPrefix(filepath.Base(pattern), ".") {
		found = slices.DeleteFunc(found, func(f string) bool { return strings.HasPrefix(filepath.Base(f), ".") })
	}
	slices.Sort(found)
	return found, nil
}

// A source is one YAML file.
type source struct {
	name  string // as messages show it
	path  string // absolute; what it names counts from its folder
	stead stead  // where it and others are read
}

// resolve makes path absolute, relative to the file's own folder, and returns where it is read.
func (s *source) resolve(path string) string {
	if !filepath.IsAbs(path) {
		path = filepath.Join(filepath.Dir(s.path), path)
	}
	return s.stead.actual(filepath.Clean(path))
}

// pattern is resolve for a glob pattern: special characters in the folder's own name are escaped.
func (s *source) pattern(pattern string) string {
	escape := strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace
	if !filepath.IsAbs(pattern) {
		pattern = filepath.Join(escape(filepath.Dir(s.path)), pattern)
	}
	return move(filepath.Clean(pattern), escape(s.stead.folder), escape(s.stead.dir))
}

// beside returns the source for another file that is read at path. Its name is relative to the same folder as this one's,
// unless another file is read in its stead.
func (s *source) beside(path string) *source {
	if belongs := s.stead.belongs(path); belongs != path {
		return &source{path, belongs, s.stead}
	}
	if filepath.IsAbs(s.name) {
		return &source{path, path, s.stead}
	}
	rel, err := filepath.Rel(filepath.Dir(s.path), path)
	if err != nil {
		return &source{path, path, s.stead}
	}
	return &source{filepath.Join(filepath.Dir(s.name), rel), path, s.stead}
}

// A loader makes one Config.
type loader struct {
	outside  outside
	instead  string        // of gateway.config.folder; "": that itself
	toServe  bool          // what is wrong with an API file is of its unit alone
	unit     *control.Unit // that is being read
	cfg      *Config
	tiers    []control.Placed[ratelimit.Tier] // the configured ones
	errs     control.Problems
	warnings control.Problems
	yaml     []string              // names of the YAML files, in the order in which they were read
	files    map[string][]byte     // by absolute path; each is read once, so that what is checked is what is used
	env      map[string]string     // variables that were used
	unread   map[string]bool       // files that could not be read, by absolute path
	made     hash.Hash             // of all that the unit is made of
	rules    map[string]*rule.Rule // by their text: APIs may share one
}

func (l *loader) errorf(at control.Place, format string, args ...any) {
	l.errs = append(l.errs, control.Problem{Place: at, Message: fmt.Sprintf(format, args...)})
}

func (l *loader) warnf(at control.Place, format string, args ...any) {
	l.warnings = append(l.warnings, control.Problem{Place: at, Message: fmt.Sprintf(format, args...)})
}

// newLoader returns a loader for data, the content of the first file. It reads through o only.
func newLoader(from *source, data []byte, o outside) *loader {
	return &loader{
		outside: o,
		cfg:     &Config{Spec: control.Spec{Place: control.Place{File: from.path}}},
		yaml:    []string{from.name},
		files:   map[string][]byte{from.path: data},
		env:     map[string]string{},
		rules:   map[string]*rule.Rule{},
		unread:  map[string]bool{},
		made:    sha256.New(),
	}
}

// load makes the Config of data, the content of the first file.
func (l *loader) load(from *source, data []byte) (*Config, error) {
	if root, ok := l.document(from, data); ok {
		l.config(root.mapping("the configuration"))
	}
	if len(l.errs) > 0 {
		return nil, l.sorted(l.errs)
	}
	c := l.cfg
	c.Warnings = l.sorted(l.warnings)
	c.Fixed = c.Startup.byKey()
	c.Fixed["rateLimit"] = c.RateLimit.Value
	c.Files = slices.Sorted(maps.Keys(l.files))
	c.unread = len(l.unread) > 0
	c.Digest = l.digest()
	c.sums = map[string][sha256.Size]byte{}
	for file, data := range l.files {
		c.sums[file] = sha256.Sum256(data)
	}
	c.Files = slices.Compact(slices.Sorted(slices.Values(slices.AppendSeq(c.Files, maps.Keys(l.unread))))) // they may come
	return c, nil
}

// sorted orders problems by place and drops repetitions; files keep the order in which they were read.
func (l *loader) sorted(problems control.Problems) control.Problems {
	rank := func(file string) int { return slices.Index(l.yaml, file) }
	slices.SortStableFunc(problems, func(a, b control.Problem) int {
		return cmp.Or(cmp.Compare(rank(a.File), rank(b.File)), cmp.Compare(a.Line, b.Line),
			cmp.Compare(a.Column, b.Column), cmp.Compare(a.Message, b.Message))
	})
	return slices.Compact(problems)
}

// document parses one file.
func (l *loader) document(from *source, data []byte) (node, bool) {
	root, err := parseDocument(from.name, data)
	if err != nil {
		if at := (control.Problem{}); errors.As(err, &at) {
			l.errs = append(l.errs, at)
		} else {
			l.errorf(control.Place{File: from.name}, "%v", err)
		}
		return node{}, false
	}
	return newNode(l, from, root), true
}

// read returns a file's content, the same for the life of the loader.
func (l *loader) read(path string, limit int64) ([]byte, error) {
	data, err := l.readOnce(path, limit)
	writeText(l.made, path)
	writeText(l.made, string(data))
	if err != nil {
		if l.unit != nil {
			l.unread[path] = true
		}
		writeText(l.made, err.Error())
	}
	return data, err
}

func (l *loader) readOnce(path string, limit int64) ([]byte, error) {
	if data, ok := l.files[path]; ok {
		if int64(len(data)) > limit {
			return nil, fmt.Errorf("larger than %d bytes", limit)
		}
		return data, nil
	}
	data, err := l.outside.readFile(path, limit)
	if err != nil {
		return nil, err
	}
	l.files[path] = data
	return data, nil
}

// writeText writes a text with its length, so that no two inputs collide by concatenation.
func writeText(h hash.Hash, s string) {
	_ = binary.Write(h, binary.BigEndian, uint64(len(s))) // writing to a hash never fails
	_, _ = io.WriteString(h, s)
}

// digest covers every file and variable, and what could not be read.
func (l *loader) digest() [32]byte {
	h := sha256.New()
	for _, file := range l.cfg.Files {
		writeText(h, "file")
		writeText(h, file)
		writeText(h, string(l.files[file]))
	}
	for _, name := range slices.Sorted(maps.Keys(l.env)) {
		writeText(h, "env")
		writeText(h, name)
		writeText(h, l.env[name])
	}
	for _, u := range l.cfg.Units {
		h.Write(u.Digest[:])
	}
	return [32]byte(h.Sum(nil))
}
