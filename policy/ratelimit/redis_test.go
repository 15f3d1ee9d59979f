package ratelimit

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

func TestParseRedis(t *testing.T) {
	for _, tt := range []struct {
		url  string
		want Redis
	}{
		{"redis://127.0.0.1:6379/0", Redis{Addresses: []string{"127.0.0.1:6379"}}},
		{"redis://localhost", Redis{Addresses: []string{"localhost:6379"}}},
		{"redis://[::1]:7000/3", Redis{Addresses: []string{"[::1]:7000"}, Database: 3}},
		{"rediss://gw:p%40ss@r.example:6380", Redis{Addresses: []string{"r.example:6380"}, Username: "gw", Password: "p@ss", TLS: true}},
		{"redis://:secret@r.example", Redis{Addresses: []string{"r.example:6379"}, Password: "secret"}},
	} {
		if got, err := ParseRedis(tt.url); err != nil || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: %+v, %v", tt.url, got, err)
		}
	}
	for url, want := range map[string]string{
		"":                             "no URL of Redis",
		"127.0.0.1:6379":               "no URL",
		"http://secret@r.example":      "no URL of Redis",
		"redis://":                     "no host and port",
		"redis://r.example:0":          "no host and port",
		"redis://secret:99999":         "no host and port",
		"redis://r.example:secret":     "no URL",
		"redis://r.example/secret":     "no number",
		"redis://r.example/-1":         "database -1",
		"redis://secret@r.example":     "username without a password",
		"redis://r.example?ttl=secret": "keys of their own",
		"redis://a:secret%zz@r":        "no URL",
	} {
		_, err := ParseRedis(url)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v, want %s", url, err, want)
		}
	}
}

func TestRedisHidesItsPassword(t *testing.T) {
	r := Redis{Addresses: []string{"r.example:6379"}, Username: "gw", Password: "secret"}
	shown := fmt.Sprintf("%v %+v %#v %s %q %d %x %X %v", r, r, r, r, r, r, r, r, &r)
	data, err := json.Marshal(r)
	shown += string(data)
	if err != nil || strings.Contains(shown, "secret") || strings.Contains(strings.ToLower(shown), fmt.Sprintf("%x", "secret")) {
		t.Errorf("%s, %v", shown, err)
	}
	if strings.Count(shown, "Redis at r.example:6379") != 10 {
		t.Errorf("not every way says where it is: %s", shown)
	}
}

func TestValidateRedis(t *testing.T) {
	one, three := []string{"a:1"}, []string{"a:1", "b:2", "c:3"}
	for _, tt := range []struct {
		r    Redis
		want string // "" for none
	}{
		{Redis{Addresses: one}, ""},
		{Redis{Addresses: three, Mode: Sentinel, Master: "m"}, ""},
		{Redis{Addresses: one, Mode: Cluster}, ""},
		{Redis{}, "no address"},
		{Redis{Addresses: []string{"a"}}, "is no host:port"},
		{Redis{Addresses: []string{":1"}}, "is no host:port"},
		{Redis{Addresses: []string{"secret@a:1"}}, "host:port alone"},
		{Redis{Addresses: []string{"redis://:secret@a:1/0"}}, "host:port alone"},
		{Redis{Addresses: three}, "mode single has one"},
		{Redis{Addresses: three, Mode: Sentinel}, "needs master"},
		{Redis{Addresses: three, Mode: Cluster, Master: "m"}, "master is for mode sentinel"},
		{Redis{Addresses: three, Mode: Cluster, Database: 1}, "database 0 only"},
		{Redis{Addresses: one, Database: -1}, "database -1"},
		{Redis{Addresses: one, Username: "u"}, "without a password"},
		{Redis{Addresses: one, CAFile: "f"}, "caFile is for TLS"},
		{Redis{Addresses: one, Mode: 7}, "unknown mode"},
	} {
		err := tt.r.Validate()
		if fault := (*RedisError)(nil); err != nil && (!errors.As(err, &fault) || fault.Key == "") {
			t.Errorf("%v: %v names no key", tt.r, err)
		}
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%+v: %v, want %q", tt.r, err, tt.want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("a message shows a password: %v", err)
		}
	}
}
