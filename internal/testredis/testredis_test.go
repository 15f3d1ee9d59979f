package testredis

import (
	"crypto/tls"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// options are what go-redis needs to be told for servers before 7.2.
func options(address string) *redis.UniversalOptions {
	return &redis.UniversalOptions{
		Addrs:                    []string{address},
		DisableIdentity:          true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
}

func connect(t *testing.T, o *redis.UniversalOptions) redis.UniversalClient {
	t.Helper()
	client := redis.NewUniversalClient(o)
	t.Cleanup(func() { client.Close() })
	return client
}

const take = `redis.call('HINCRBY', KEYS[1], 'spent', ARGV[1]); redis.call('PEXPIRE', KEYS[1], 60000)
return {redis.call('HGET', KEYS[1], 'spent'), redis.call('TIME')[1]}`

func TestServer(t *testing.T) {
	t.Parallel()
	first, second := Start(t, Options{}), Start(t, Options{AppendOnly: true})
	client := connect(t, options(second.Address))
	if err := client.Set(t.Context(), "sallyport:x", "kept", 0).Err(); err != nil {
		t.Fatal(err)
	}
	if got := first.Do("EXISTS", "sallyport:x"); got != "0" {
		t.Errorf("the other server has the key, too: %s", got)
	}

	second.Kill()
	if err := client.Ping(t.Context()).Err(); err == nil {
		t.Error("a killed server answers")
	}
	second.Restart()
	if got, err := client.Get(t.Context(), "sallyport:x").Result(); got != "kept" {
		t.Errorf("after Restart: %q, %v", got, err)
	}

	o := options(second.Address)
	o.MaxRetries, o.ReadTimeout = -1, 50e6
	hasty := connect(t, o)
	second.Pause()
	if err := hasty.Ping(t.Context()).Err(); err == nil {
		t.Error("a paused server answers")
	}
	second.Resume()
	if err := client.Ping(t.Context()).Err(); err != nil {
		t.Errorf("after Resume: %v", err)
	}

	second.Do("CONFIG", "SET", "maxmemory", "1")
	if err := client.Set(t.Context(), "sallyport:y", "y", 0).Err(); err == nil || !strings.HasPrefix(err.Error(), "OOM") {
		t.Errorf("a full server: %v", err)
	}
}

func TestServerWithTLSAndUser(t *testing.T) {
	t.Parallel()
	server := Start(t, Options{TLS: true, User: "limiter", Password: "secret"})
	o := options(server.Address)
	o.TLSConfig = &tls.Config{RootCAs: server.Roots}
	if err := connect(t, o).Ping(t.Context()).Err(); err == nil {
		t.Error("a stranger is let in")
	}
	o.Username, o.Password = "limiter", "secret"
	client := connect(t, o)
	reply, err := redis.NewScript(take).Run(t.Context(), client, []string{"sallyport:x"}, 3).Slice()
	if err != nil || reply[0] != "3" {
		t.Errorf("the user's script: %v, %v", reply, err)
	}
	for _, denied := range [][]any{{"FLUSHALL"}, {"CONFIG", "GET", "*"}, {"KEYS", "*"}, {"SET", "other:x", "1"}} {
		if err := client.Do(t.Context(), denied...).Err(); err == nil || !strings.HasPrefix(err.Error(), "NOPERM") {
			t.Errorf("%v: %v", denied, err)
		}
	}
	server.Do("FLUSHALL")
	if got := server.Do("DBSIZE"); got != "0" {
		t.Errorf("keys after FLUSHALL: %s", got)
	}
	server.Do("DEBUG", "SLEEP", "0.01")

	plain := options(server.Address)
	plain.MaxRetries = -1
	if err := connect(t, plain).Ping(t.Context()).Err(); err == nil {
		t.Error("the server answers without TLS")
	}
}

func TestServerWithPassword(t *testing.T) {
	t.Parallel()
	server := Start(t, Options{Password: "secret", Args: []string{"--maxmemory", "64mb"}})
	o := options(server.Address)
	if err := connect(t, o).Ping(t.Context()).Err(); err == nil || !strings.HasPrefix(err.Error(), "NOAUTH") {
		t.Errorf("without the password: %v", err)
	}
	o.Password = "secret"
	got, err := connect(t, o).ConfigGet(t.Context(), "maxmemory").Result()
	if err != nil || got["maxmemory"] != "67108864" {
		t.Errorf("maxmemory: %v, %v", got, err)
	}
}

func TestServerThatLoads(t *testing.T) {
	t.Parallel()
	server := Start(t, Options{AppendOnly: true})
	server.Do("SET", "sallyport:x", "kept")
	server.RestartLoading()
	if reply, err := server.do("GET", "sallyport:x"); err == nil || !strings.HasPrefix(err.Error(), "LOADING") {
		t.Errorf("a server that loads answers %q, %v", reply, err)
	}
	server.FinishLoading()
	if got := server.Do("GET", "sallyport:x"); got != "kept" {
		t.Errorf("after loading: %q", got)
	}
}

func TestNothingThatWasWrittenIsLost(t *testing.T) {
	t.Parallel()
	server := Start(t, Options{AppendOnly: true, Args: []string{"--appendfsync", "everysec"}})
	if got := server.Do("CONFIG", "GET", "appendfsync"); got != "appendfsync\neverysec" {
		t.Fatal(got)
	}
	server.Do("SET", "sallyport:x", "kept")
	server.WaitWritten()
	server.Restart()
	if got := server.Do("GET", "sallyport:x"); got != "kept" {
		t.Errorf("after Restart: %q", got)
	}
}

func TestServerThatCannotSave(t *testing.T) {
	t.Parallel()
	server := Start(t, Options{})
	server.DenySaving()
	if _, err := server.do("SET", "sallyport:x", "x"); err == nil || !strings.HasPrefix(err.Error(), "MISCONF") {
		t.Errorf("a server that can't save: %v", err)
	}
	server.AllowSaving()
	server.Do("SET", "sallyport:x", "x")
}
