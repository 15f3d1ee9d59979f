package config_test

import (
	"errors"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"sallyport/cmd/sallyport/internal/config"
	"sallyport/gateway/control"
	"sallyport/policy/ratelimit"
)

// withRedis is a configuration with some lines in `rateLimit:`.
func withRedis(lines string) string {
	return "listeners: [{name: http, address: 127.0.0.1:0}]\nrateLimit:\n  " + lines + "\n"
}

// TestRedisErrors holds what is said about each bad line of testdata/redis.txt against what is written below it.
func TestRedisErrors(t *testing.T) {
	const secret = "canary"
	t.Setenv("SECRET", secret)
	dir := t.TempDir()
	file := filepath.Join(dir, "sallyport.yaml")
	put(t, filepath.Join(dir, "empty"), nil)
	const list = "testdata/redis.txt"
	var got strings.Builder
	for line := range strings.Lines(string(read(t, list))) {
		if strings.HasPrefix(line, "\t") {
			continue
		}
		line = strings.TrimSuffix(line, "\n")
		got.WriteString(line + "\n")
		put(t, file, []byte(withRedis(line)))
		c, err := config.Load(file)
		if c != nil || !errors.As(err, new(control.Problems)) {
			t.Errorf("%s: %v, %v; want Problems alone", line, c, err)
			continue
		}
		for message := range strings.SplitSeq(err.Error(), "\n") {
			if strings.Contains(message, secret) {
				t.Errorf("a message shows a secret: %s", message)
			}
			got.WriteString("\t" + strings.TrimPrefix(message, file+":") + "\n")
		}
	}
	golden(t, list, got.String())
}

// TestRedis reads what is good.
func TestRedis(t *testing.T) {
	const hard = `p@s/s:w%ö rd?#+`
	t.Setenv("URL", "rediss://gw:p%40ss@r.example/2")
	t.Setenv("PASSWORD", hard)
	dir := t.TempDir()
	put(t, filepath.Join(dir, "password"), []byte(hard+"\n"))
	put(t, filepath.Join(dir, "url"), []byte("redis://r.example\n"))
	one := []string{"r.example:6379"}
	for _, tt := range []struct {
		lines string
		want  control.RateLimit
	}{
		{"redis: redis://r.example", control.RateLimit{Redis: ratelimit.Redis{Addresses: one}}},
		{"redis: redis://r.example\n  whenRedisFails: local", control.RateLimit{Redis: ratelimit.Redis{Addresses: one}}},
		{
			"whenRedisFails: allow\n  redis: ${env:URL}",
			control.RateLimit{
				Redis:     ratelimit.Redis{Addresses: one, Username: "gw", Password: "p@ss", TLS: true, Database: 2},
				OnFailure: ratelimit.AllowAll,
			},
		},
		{"redis: ${file:url}", control.RateLimit{Redis: ratelimit.Redis{Addresses: one}}},
		{
			`redis: "redis://:${env:PASSWORD}@r.example"`,
			control.RateLimit{Redis: ratelimit.Redis{Addresses: one, Password: hard}},
		},
		{
			`redis: "redis://gw:a%20${file:password}z@r.example/0"`,
			control.RateLimit{Redis: ratelimit.Redis{Addresses: one, Username: "gw", Password: "a " + hard + "z"}},
		},
		{
			`redis: {addresses: [r.example:6379], username: gw, password: "${file:password}"}`,
			control.RateLimit{Redis: ratelimit.Redis{Addresses: one, Username: "gw", Password: hard}},
		},
		{"redis: {addresses: [r.example:6379], tls: true}", control.RateLimit{Redis: ratelimit.Redis{Addresses: one, TLS: true}}},
		{"redis: {addresses: [r.example:6379], tls: false}", control.RateLimit{Redis: ratelimit.Redis{Addresses: one}}},
		{
			"redis: {addresses: [r.example:6379], caFile: ca/redis.pem}",
			control.RateLimit{Redis: ratelimit.Redis{Addresses: one, TLS: true, CAFile: filepath.Join(dir, "ca/redis.pem")}},
		},
		{
			`redis: {addresses: ["[::1]:7000", b:7001], mode: cluster}`,
			control.RateLimit{Redis: ratelimit.Redis{Addresses: []string{"[::1]:7000", "b:7001"}, Mode: ratelimit.Cluster}},
		},
	} {
		file := filepath.Join(dir, "sallyport.yaml")
		put(t, file, []byte(withRedis(tt.lines)))
		c, err := config.Load(file)
		if err != nil {
			t.Errorf("%s: %v", tt.lines, err)
			continue
		}
		// The Redis is compared by its fields: it does not print its password.
		if got := c.RateLimit.Value; !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: %+v with the password %q, want %+v", tt.lines, got, got.Redis.Password, tt.want)
		}
	}
}

// TestRedisFollowsItsSecrets: another password in a file or a variable is another setting that needs a restart.
func TestRedisFollowsItsSecrets(t *testing.T) {
	file := write(t, "sallyport.yaml", withRedis(`redis: "redis://:${file:password}@r.example"`))
	password := filepath.Join(filepath.Dir(file), "password")
	put(t, password, []byte("one"))
	c, err := config.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	put(t, password, []byte("two"))
	next, err := c.Reload()
	if err != nil {
		t.Fatal(err)
	}
	if next == c || reflect.DeepEqual(c.Fixed["rateLimit"], next.Fixed["rateLimit"]) {
		t.Error("nothing tells of another password")
	}
	delete(c.Fixed, "rateLimit")
	delete(next.Fixed, "rateLimit")
	if !reflect.DeepEqual(c.Fixed, next.Fixed) {
		t.Error("another password is another setting besides")
	}
}

// TestRedisOfTheManual loads the examples of docs/configuration.md: a single server, Sentinels, a cluster, TLS.
func TestRedisOfTheManual(t *testing.T) {
	t.Setenv("REDIS_PASSWORD", "changeit")
	_, section, _ := strings.Cut(string(read(t, "../../../../docs/configuration.md")), "\n## rateLimit\n")
	section, _, _ = strings.Cut(section, "\n## ")
	var modes []string
	for i, block := range strings.Split(section, "\n```") {
		block, isYAML := strings.CutPrefix(block, "yaml\n")
		if i%2 == 0 || !isYAML {
			continue
		}
		file := write(t, "sallyport.yaml", "listeners: [{name: http, address: 127.0.0.1:0}]\n"+block+"\n")
		put(t, filepath.Join(filepath.Dir(file), "secrets/redis.password"), []byte("changeit\n"))
		c, err := config.Load(file)
		if err != nil {
			t.Errorf("%s\n%v", block, err)
			continue
		}
		r := c.RateLimit.Value.Redis
		if r.Password != "changeit" {
			t.Errorf("%s\nthe password does not arrive", block)
		}
		if mode := r.Mode.String(); r.TLS {
			modes = append(modes, mode+" by TLS")
		} else {
			modes = append(modes, mode)
		}
	}
	if got := strings.Join(modes, ", "); got != "single, sentinel, cluster, single by TLS" {
		t.Errorf("the examples are %s", got)
	}
}
