package token

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// maxDepth is how deep objects and lists may nest.
const maxDepth = 32

// maxSeconds is the last second of the year 9999, the greatest time taken.
const maxSeconds = 253402300799

// maxExponent is the greatest exponent of ten in a number of seconds, either way. Java writes 1.7E9.
const maxExponent = 999

// An object is a JSON object whose members are read by their exact names, unlike encoding/json, which takes EXP for
// exp.
type object map[string]json.RawMessage

// parseObject takes one JSON object and nothing after it, in valid UTF-8, without two members of one name in it or in
// any object within: parsers differ in which of two they believe.
func parseObject(b []byte) (object, error) {
	if !utf8.Valid(b) {
		return nil, errors.New("it is not UTF-8")
	}
	if len(bytes.TrimSpace(b)) == 0 {
		return nil, errors.New("it is empty")
	}
	if err := checkMembers(b); err != nil {
		return nil, err
	}
	var members object
	// The library's errors quote what they read.
	if err := json.Unmarshal(b, &members); err != nil || members == nil {
		return nil, errors.New("it is not a JSON object")
	}
	return members, nil
}

// checkMembers looks for duplicate names and for nesting without end.
func checkMembers(b []byte) error {
	type level struct {
		names   map[string]struct{} // nil in a list
		atValue bool                // in an object: a name has been read, its value not yet
	}
	var levels []level
	decoder := json.NewDecoder(bytes.NewReader(b))
	decoder.UseNumber()
	for {
		token, err := decoder.Token()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return errors.New("it is not JSON")
		}
		switch token {
		case json.Delim('{'), json.Delim('['):
			if len(levels) == maxDepth {
				return errors.New("it nests too deep")
			}
			var l level
			if token == json.Delim('{') {
				l.names = make(map[string]struct{})
			}
			levels = append(levels, l)
			continue
		case json.Delim('}'), json.Delim(']'):
			levels = levels[:len(levels)-1]
		}
		if len(levels) == 0 {
			continue // json.Unmarshal refuses a second value
		}
		here := &levels[len(levels)-1]
		if here.names == nil {
			continue
		}
		if here.atValue {
			here.atValue = false
			continue
		}
		name, _ := token.(string)
		if _, has := here.names[name]; has {
			return errors.New("a member comes twice")
		}
		here.names[name] = struct{}{}
		here.atValue = true
	}
}

// text reads a member that must be a string if it is there; null is none.
func (o object) text(name string, into *string) (has bool, err error) {
	value, has := o[name]
	if !has {
		return false, nil
	}
	s, ok := asText(value)
	if !ok {
		return true, fmt.Errorf("%s is not a string", name)
	}
	*into = s
	return true, nil
}

// texts reads a member that is a string or a list of strings, if it is there. A string is cut by split.
func (o object) texts(name string, split func(string) []string) ([]string, error) {
	value, has := o[name]
	if !has {
		return nil, nil
	}
	if s, ok := asText(value); ok {
		return split(s), nil
	}
	var list []json.RawMessage
	if len(value) == 0 || value[0] != '[' || json.Unmarshal(value, &list) != nil {
		return nil, fmt.Errorf("%s is neither a string nor a list", name)
	}
	texts := make([]string, 0, len(list))
	for _, item := range list {
		s, ok := asText(item)
		if !ok {
			return nil, fmt.Errorf("%s lists what is not a string", name)
		}
		texts = append(texts, s)
	}
	return texts, nil
}

// seconds reads a NumericDate (RFC 7519, section 2): a JSON number, whose fraction counts. It is read digit by digit,
// so that nothing is rounded; what lies below a nanosecond is cut off. A negative one, before 1970, is an error.
func (o object) seconds(name string) (*time.Time, error) {
	value, has := o[name]
	if !has {
		return nil, nil
	}
	mantissa, exponent, _ := strings.Cut(strings.ToLower(string(value)), "e")
	whole, fraction, _ := strings.Cut(mantissa, ".") // JSON has digits on both sides of a point
	if !isDigits(whole + fraction) {
		return nil, fmt.Errorf("%s is not a number of seconds since 1970", name)
	}
	shift := 0
	if exponent != "" {
		var err error
		if shift, err = strconv.Atoi(exponent); err != nil || shift < -maxExponent || shift > maxExponent {
			return nil, fmt.Errorf("%s has an exponent that no time needs", name)
		}
	}
	digits, point := whole+fraction, len(whole)+shift
	digit := func(i int) int64 {
		if i < 0 || i >= len(digits) {
			return 0
		}
		return int64(digits[i] - '0')
	}
	var seconds, nanoseconds int64
	for i := range point {
		if seconds = seconds*10 + digit(i); seconds > maxSeconds {
			return nil, fmt.Errorf("%s is too great", name)
		}
	}
	for i := range 9 {
		nanoseconds = nanoseconds*10 + digit(point+i)
	}
	t := time.Unix(seconds, nanoseconds).UTC()
	return &t, nil
}

func isDigits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

func asText(value json.RawMessage) (string, bool) {
	var s string
	if len(value) == 0 || value[0] != '"' || json.Unmarshal(value, &s) != nil {
		return "", false
	}
	return s, true
}

// words cuts at spaces (RFC 6749, section 3.3).
func words(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ' ' })
}

func one(s string) []string { return []string{s} }
