// Package eachfield changes a value field by field, for tests that guard what must follow every field: a digest, a
// comparison, a conversion.
package eachfield

import (
	"fmt"
	"iter"
	"net/netip"
	"net/url"
	"reflect"
)

// Change yields, for each exported field of base and of what it holds, the field's path such as "KeyStore.Alias" or
// "URLs[0].Host", and a copy of base in which that field alone differs. Slices and pointers also change as a whole:
// they become longer, nil or set. It panics at a type that it does not know how to change.
func Change[T any](base T) iter.Seq2[string, T] {
	return func(yield func(string, T) bool) {
		changed := reflect.New(reflect.TypeFor[T]()).Elem()
		changed.Set(clone(reflect.ValueOf(&base).Elem()))
		each("", changed, func(path string) bool {
			out := clone(changed)
			return yield(path, out.Interface().(T))
		})
	}
}

// each changes v, which is settable, in one place after the other and restores it. It reports whether to continue.
func each(path string, v reflect.Value, visit func(string) bool) bool {
	try := func(path string, other reflect.Value) bool {
		was := reflect.New(v.Type()).Elem()
		was.Set(v)
		v.Set(other)
		defer v.Set(was)
		return visit(path)
	}
	switch old := v.Interface().(type) {
	case netip.Addr:
		return try(path, reflect.ValueOf(netip.MustParseAddr("192.0.2.1")))
	case netip.Prefix:
		return try(path, reflect.ValueOf(netip.MustParsePrefix("192.0.2.0/24")))
	case *url.URL:
		other := &url.URL{Scheme: "https", Host: "other.example"}
		if old != nil {
			*other = *old
			other.Host += ".example"
		}
		return try(path, reflect.ValueOf(other))
	}
	other := reflect.New(v.Type()).Elem()
	switch v.Kind() {
	case reflect.String:
		other.SetString(v.String() + "x")
	case reflect.Bool:
		other.SetBool(!v.Bool())
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		other.SetInt(v.Int() + 1)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		other.SetUint(v.Uint() + 1)
	case reflect.Struct:
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.IsExported() && !each(join(path, f.Name), v.Field(i), visit) {
				return false
			}
		}
		return true
	case reflect.Pointer:
		if v.IsNil() {
			other.Set(reflect.New(v.Type().Elem()))
			return try(path, other)
		}
		return each(path, v.Elem(), visit) && try(path, other)
	case reflect.Slice:
		for i := range v.Len() {
			if !each(fmt.Sprintf("%s[%d]", path, i), v.Index(i), visit) {
				return false
			}
		}
		other.Set(reflect.Append(v.Slice3(0, v.Len(), v.Len()), reflect.Zero(v.Type().Elem())))
	default:
		panic(fmt.Sprintf("%s: eachfield does not know how to change a %s", path, v.Type()))
	}
	return try(path, other)
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// clone copies v and whatever its exported fields lead to.
func clone(v reflect.Value) reflect.Value {
	out := reflect.New(v.Type()).Elem()
	out.Set(v)
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				out.Field(i).Set(clone(v.Field(i)))
			}
		}
	case reflect.Pointer:
		if !v.IsNil() {
			out.Set(reflect.New(v.Type().Elem()))
			out.Elem().Set(clone(v.Elem()))
		}
	case reflect.Slice:
		if !v.IsNil() {
			out.Set(reflect.MakeSlice(v.Type(), v.Len(), v.Len()))
			for i := range v.Len() {
				out.Index(i).Set(clone(v.Index(i)))
			}
		}
	}
	return out
}
