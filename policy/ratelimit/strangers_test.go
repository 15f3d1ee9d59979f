package ratelimit

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sallyport/internal/testpki"
	"sallyport/internal/testredis"
)

// TestNamesAreNoRules holds docs/security.md, I 127: an alias that reads like a rule, a key or a command blocks nobody but
// itself, and opens nothing.
func TestNamesAreNoRules(t *testing.T) {
	server := testredis.Start(t, testredis.Options{})
	o := Options{Redis: Redis{Addresses: []string{server.Address}}, Timeout: patient}
	l, _ := run(t, o)
	slowly := Tier{Name: `T","blocked":true,"x":"`, RequestCount: 3, UnitTime: 1000, TimeUnit: Hour}
	victim := client("victim")
	names := []string{
		`victim","blocked":true,"until":"9999999999`, `{"key":"victim","value":"*","state":"BLOCKED"}`, `"victim"`, `'victim'`, "victim\x00", "*", "victim*",
		"*1\r\n$8\r\nFLUSHALL\r\n", `' redis.call('FLUSHALL') '`, l.shared.keyOf(victim.tag(), "t"), victim.tag(), "{" + victim.tag() + "}:t",
	}
	if v := await(l.Bucket(victim, slowly)); !v.Allowed || v.Uncounted {
		t.Fatalf("%+v", v)
	}
	for _, name := range names {
		b := l.Bucket(client(name), slowly)
		passed := 0
		for range 5 {
			if v := await(b); v.Uncounted {
				t.Errorf("%q is not counted: %v", name, l.State().Failing)
			} else if v.Allowed {
				passed++
			}
		}
		if passed != 3 {
			t.Errorf("%q: %d calls pass, want 3", name, passed)
		}
	}
	passed := 0
	for range 5 {
		if await(l.Bucket(victim, slowly)).Allowed {
			passed++
		}
	}
	if passed != 2 {
		t.Errorf("%d more calls of the victim pass, want 2", passed)
	}
	for _, key := range strings.Fields(server.Do("KEYS", "*")) {
		if !strings.HasPrefix(key, "sallyport:{") {
			t.Errorf("key %q", key)
		}
	}
}

// TestStrangersFeedNoLimits holds docs/security.md, I 127: who doesn't know Redis's user, password and CA neither counts
// in it nor is told anything, and calls are decided by OnFailure.
func TestStrangersFeedNoLimits(t *testing.T) {
	server := testredis.Start(t, testredis.Options{TLS: true, User: "limiter", Password: "open-sesame"})
	foreign := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(foreign, testpki.PEM(testpki.NewCA(t, "another CA").Cert), 0o600); err != nil {
		t.Fatal(err)
	}
	good := Redis{Addresses: []string{server.Address}, TLS: true, CAFile: server.CAFile, Username: "limiter", Password: "open-sesame"}
	for name, spoil := range map[string]func(*Redis){
		"no user":          func(r *Redis) { r.Username, r.Password = "", "" },
		"the default user": func(r *Redis) { r.Username = "" },
		"another user":     func(r *Redis) { r.Username = "default" },
		"a wrong password": func(r *Redis) { r.Password = "open" },
		"another CA":       func(r *Redis) { r.CAFile = foreign },
		"no TLS":           func(r *Redis) { r.TLS, r.CAFile = false, "" },
	} {
		r := good
		spoil(&r)
		l, stop := run(t, Options{Redis: r, OnFailure: DenyAll})
		err := l.Connect(t.Context())
		if v := await(l.Bucket(client("a"), perMinute(10))); err == nil || v.Allowed || !v.Uncounted {
			t.Errorf("%s: %v, %+v", name, err, v)
		} else if strings.Contains(err.Error(), "sesame") {
			t.Errorf("%s: the error shows the password: %v", name, err)
		}
		stop()
		if n := server.Do("DBSIZE"); n != "0" {
			t.Errorf("%s: it has written %s keys", name, n)
		}
	}
	l, _ := run(t, Options{Redis: good, OnFailure: DenyAll, Timeout: patient})
	if v := await(l.Bucket(client("a"), perMinute(10))); !v.Allowed || v.Uncounted || server.Do("DBSIZE") == "0" {
		t.Errorf("who knows them: %+v", v)
	}
}
