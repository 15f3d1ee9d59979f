package config

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"

	"sallyport/gateway/control"
	"sallyport/internal/printable"
)

const maxText = 4096 // characters of one value that isn't a secret

// A node is one value of a YAML file.
type node struct {
	control.Place
	load *loader
	from *source
	ast  ast.Node
}

func newNode(load *loader, from *source, n ast.Node) node {
	at := n.GetToken()
	switch v := n.(type) {
	case *ast.MappingNode: // a block map's token is its first colon
		if !v.IsFlowStyle && len(v.Values) > 0 {
			at = v.Values[0].Key.GetToken()
		}
	case *ast.MappingValueNode:
		at = v.Key.GetToken()
	}
	return node{tokenPos(from.name, at), load, from, n}
}

// kind names the kind of the value, for messages.
func (n node) kind() string {
	switch n.ast.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a map"
	case *ast.SequenceNode:
		return "a list"
	case *ast.StringNode, *ast.LiteralNode:
		return "text"
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return "a number"
	case *ast.BoolNode:
		return "true or false"
	case *ast.NullNode:
		return "nothing"
	}
	return "something else"
}

// rawText is the value of a text node.
func (n node) rawText() (string, bool) {
	switch v := n.ast.(type) {
	case *ast.StringNode:
		return v.Value, true
	case *ast.LiteralNode:
		return v.Value.Value, true
	}
	return "", false
}

// A text is a scalar's text and its place. OK is false if it is absent, or invalid and reported.
type text struct {
	control.Place
	Value string
	OK    bool
}

// text reads any text except a secret.
func (n node) text(what string) text {
	s, ok := n.rawText()
	switch {
	case !ok && (n.kind() == "a number" || n.kind() == "true or false"):
		n.load.errorf(n.Place, "%s is to be text, not %s: put it in quotes", what, n.kind())
	case !ok:
		n.load.errorf(n.Place, "%s is to be text, not %s", what, n.kind())
	case s == "":
		n.load.errorf(n.Place, "%s is empty: give a value, or remove it", what)
	case strings.Contains(s, "${"):
		n.load.errorf(n.Place,
			"%s can't hold a ${…} reference: these stand for secrets, in password, keyPassword, secrets and redis only", what)
	case strings.ContainsFunc(s, isControl) || !utf8.ValidString(s):
		n.load.errorf(n.Place, "%s holds a control character: write it on one line, without escapes", what)
	case utf8.RuneCountInString(s) > maxText:
		n.load.errorf(n.Place, "%s is longer than %d characters", what, maxText)
	default:
		return text{n.Place, s, true}
	}
	return text{Place: n.Place}
}

// A mapping is a YAML map being read: each method reads one key, and end reports those that none has read.
type mapping struct {
	control.Place
	load    *loader
	from    *source
	what    string // "listener", for messages
	entries []entry
	subs    map[string]*mapping // that were read, by key
	known   []string
	broken  bool // not a map or absent: its keys aren't missing
}

type entry struct {
	control.Place
	key   string
	value node
	used  bool // a method has read it
}

// mapping reads n's keys.
func (n node) mapping(what string) *mapping {
	m := &mapping{Place: n.Place, load: n.load, from: n.from, what: what}
	var pairs []*ast.MappingValueNode
	switch v := n.ast.(type) {
	case *ast.MappingNode:
		pairs = v.Values
	case *ast.MappingValueNode:
		pairs = []*ast.MappingValueNode{v}
	default:
		n.load.errorf(n.Place, "%s is to be a map of keys and values, not %s", what, n.kind())
		m.broken = true
		return m
	}
	first := map[string]control.Place{}
	for _, pair := range pairs {
		pos := tokenPos(n.from.name, pair.Key.GetToken())
		name, ok := pair.Key.(*ast.StringNode)
		if !ok {
			n.load.errorf(pos, "the keys of %s are words: quote this one, or remove it", what)
			continue
		}
		if at, twice := first[name.Value]; twice {
			n.load.errorf(pos, "the key%s is here twice, first in line %d: keep one", m.show(name.Value), at.Line)
			continue
		}
		first[name.Value] = pos
		m.entries = append(m.entries, entry{Place: pos, key: name.Value, value: newNode(n.load, n.from, pair.Value)})
	}
	return m
}

// show returns key for messages, or nothing in a map with a secret: in {password: a, b}, b is a key.
func (m *mapping) show(key string) string {
	switch m.what {
	case "keyStore", "trustStore", "secrets", "rateLimit", "redis", "store":
		return ""
	}
	return " " + printable.Quote(key)
}

// keys returns where each value is, also in the maps below that were read.
func (m *mapping) keys() control.Keys {
	keys := control.Keys{}
	for _, e := range m.entries {
		keys[e.key] = e.value.Place
		if s := m.subs[e.key]; s != nil {
			for key, at := range s.keys() {
				keys[e.key+"."+key] = at
			}
		}
	}
	return keys
}

// end reports the keys that no method has read.
func (m *mapping) end() {
	for _, e := range m.entries {
		if e.used {
			continue
		}
		if strings.Contains(e.key, ":") {
			m.load.errorf(e.Place, "unknown key%s in %s: write a space after the colon", m.show(e.key), m.what)
		} else if near := nearest(e.key, m.known); near != "" {
			m.load.errorf(e.Place, "unknown key%s in %s: did you mean %s?", m.show(e.key), m.what, near)
		} else {
			m.load.errorf(e.Place,
				"unknown key%s in %s: its keys are %s", m.show(e.key), m.what, strings.Join(m.known, ", "))
		}
	}
}

// find makes key known and returns its entry, or nil.
func (m *mapping) find(key string) *entry {
	if !slices.Contains(m.known, key) {
		m.known = append(m.known, key)
	}
	return m.use(key)
}

func (m *mapping) use(key string) *entry {
	for i := range m.entries {
		if e := &m.entries[i]; e.key == key {
			e.used = true
			return e
		}
	}
	return nil
}

// refuse reports key if it is present: it is known, but not allowed here.
func (m *mapping) refuse(key, why string) {
	if e := m.use(key); e != nil {
		m.load.errorf(e.Place, "%s %s", key, why)
	}
}

// take returns key's value; a key without one is reported.
func (m *mapping) take(key string) (node, bool) {
	e := m.find(key)
	if e == nil {
		return node{}, false
	}
	if e.value.kind() == "nothing" {
		m.load.errorf(e.Place, "key %s has no value: give one, or remove the key", key)
		return node{}, false
	}
	return e.value, true
}

// need reports a missing key; say is what to write.
func (m *mapping) need(key, say string) {
	if m.find(key) == nil && !m.broken {
		m.load.errorf(m.Place, "%s needs the key %s: %s", m.what, key, say)
	}
}

// sub returns the map under key, an empty one if there is none.
func (m *mapping) sub(key string) (*mapping, bool) {
	if n, ok := m.take(key); ok {
		s := n.mapping(key)
		if m.subs == nil {
			m.subs = map[string]*mapping{}
		}
		m.subs[key] = s
		return s, true
	}
	return &mapping{Place: m.Place, load: m.load, from: m.from, what: key, broken: true}, false
}

// text returns the text under key.
func (m *mapping) text(key string) text {
	n, ok := m.take(key)
	if !ok {
		return text{Place: m.Place}
	}
	return n.text(key)
}

// list returns the values under key; given is whether there is such a list at all.
func (m *mapping) list(key string) (values []node, given bool) {
	n, ok := m.take(key)
	if !ok {
		return nil, false
	}
	seq, ok := n.ast.(*ast.SequenceNode)
	if !ok {
		m.load.errorf(n.Place, "%s is to be a list, not %s: write it as [ … ], or one \"- …\" a line", key, n.kind())
		return nil, false
	}
	for _, v := range seq.Values {
		values = append(values, newNode(m.load, m.from, v))
	}
	return values, true
}

// nodes is list where an absent list and an empty one mean the same.
func (m *mapping) nodes(key string) []node {
	values, _ := m.list(key)
	return values
}

// notEmpty reports an empty list under key; say is what to do.
func (m *mapping) notEmpty(key, say string) {
	if e := m.find(key); e != nil {
		if seq, ok := e.value.ast.(*ast.SequenceNode); ok && len(seq.Values) == 0 {
			m.load.errorf(e.Place, "%s is empty: %s", key, say)
		}
	}
}

// texts returns the valid texts of the list under key, without repetitions, which are reported.
func (m *mapping) texts(key string) (values []text, given bool) {
	nodes, given := m.list(key)
	for _, n := range nodes {
		t := n.text("an entry of " + key)
		if !t.OK {
			continue
		}
		if slices.ContainsFunc(values, func(v text) bool { return v.Value == t.Value }) {
			m.load.errorf(t.Place, "%s is in %s twice: keep one", printable.Quote(t.Value), key)
			continue
		}
		values = append(values, t)
	}
	return values, given
}

// boolean returns the boolean under key, or false.
func (m *mapping) boolean(key string) bool {
	n, ok := m.take(key)
	if !ok {
		return false
	}
	b, ok := n.ast.(*ast.BoolNode)
	if !ok {
		m.load.errorf(n.Place, "%s is to be true or false, not %s", key, n.kind())
		return false
	}
	return b.Value
}

// integer returns the whole number under key, or otherwise. Only decimal digits are accepted: 010 and 0x10 are
// read differently elsewhere.
func (m *mapping) integer(key string, low, high, otherwise int) int {
	n, ok := m.take(key)
	if !ok {
		return otherwise
	}
	if _, ok := n.ast.(*ast.IntegerNode); !ok {
		m.load.errorf(n.Place, "%s is to be a whole number from %d to %d, not %s", key, low, high, n.kind())
		return otherwise
	}
	digits := n.ast.GetToken().Value
	v, err := strconv.Atoi(digits)
	if err != nil || strconv.Itoa(v) != digits {
		v = math.MinInt
	}
	if v < low || v > high {
		m.load.errorf(n.Place, "%s is to be a whole number from %d to %d, in decimal digits", key, low, high)
		return otherwise
	}
	return v
}

// duration returns the duration under key, or otherwise.
func (m *mapping) duration(key string, low, otherwise time.Duration) time.Duration {
	n, ok := m.take(key)
	if !ok {
		return otherwise
	}
	if n.kind() == "a number" {
		m.load.errorf(n.Place, "%s needs a unit, as in 500ms, 10s or 2m", key)
		return otherwise
	}
	t := n.text(key)
	if !t.OK {
		return otherwise
	}
	d, err := time.ParseDuration(t.Value)
	switch {
	case err != nil:
		m.load.errorf(t.Place, "%s is to be a duration, as in 500ms, 10s, 2m or 1h30m, not %s", key, printable.Quote(t.Value))
		return otherwise
	case d < low:
		m.load.errorf(t.Place, "%s is %s: it is to be at least %s", key, d, low)
		return otherwise
	}
	return d
}

// word returns the text under key if it is one of words, else otherwise.
func (m *mapping) word(key, otherwise string, words ...string) text {
	t := m.text(key)
	if t.OK && slices.Contains(words, t.Value) {
		return t
	}
	if t.OK {
		m.load.errorf(t.Place, "%s is to be %s, not %s", key, either(words), printable.Quote(t.Value))
	}
	return text{Place: t.Place, Value: otherwise}
}

// ask returns what the text under key means to its room, or otherwise, and the text if it means something. parse is the
// room's, which defines the words.
func ask[T any](m *mapping, key string, otherwise T, parse func(string) (T, error)) (T, text) {
	t := m.text(key)
	if !t.OK {
		return otherwise, t
	}
	v, err := parse(t.Value)
	if err != nil {
		m.load.errorf(t.Place, "%s: %v", key, err)
		return otherwise, text{Place: t.Place}
	}
	return v, t
}

// askEach returns what the texts of the list under key mean together. Their room's parse checks each alone, for its
// place, then all of them.
func askEach[T any](m *mapping, key string, parse func([]string) (T, error)) T {
	values, _ := m.texts(key)
	before := len(m.load.errs)
	for _, v := range values {
		if _, err := parse([]string{v.Value}); err != nil {
			m.load.errorf(v.Place, "%s: %v", key, err)
		}
	}
	all, err := parse(plain(values))
	if err != nil && len(m.load.errs) == before {
		m.load.errorf(m.find(key).Place, "%s: %v", key, err)
	}
	return all
}

// path returns the path under key, absolute, or "".
func (m *mapping) path(key string) string {
	t := m.text(key)
	if !t.OK {
		return ""
	}
	return m.from.resolve(t.Value)
}
