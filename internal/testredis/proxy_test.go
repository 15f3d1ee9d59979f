package testredis

import (
	"testing"
	"time"

	"sallyport/internal/testserver"
)

func TestProxy(t *testing.T) {
	t.Parallel()
	server := Start(t, Options{})
	proxy := Proxy(t, server.Address)
	o := options(proxy.Address)
	o.MaxRetries = -1
	client := connect(t, o)
	ping := func() error { return client.Ping(t.Context()).Err() }
	works := func(when string) {
		t.Helper()
		testserver.Eventually(t, when, ping) // connections of the bad time may still be in the pool
	}
	works("at first")

	proxy.Slow(100 * time.Millisecond)
	before := time.Now()
	works("slow")
	if took := time.Since(before); took < 100*time.Millisecond {
		t.Errorf("a slow reply took %v", took)
	}
	proxy.Clear()

	works("after Slow")
	proxy.Reset()
	for range 2 { // a connection that was open, and a new one
		if err := ping(); err == nil {
			t.Error("a reset connection answers")
		}
	}
	proxy.Clear()

	works("after Reset")
	server.Do("SET", "long", string(make([]byte, 1000)))
	proxy.LimitData(500)
	if got, err := client.Get(t.Context(), "long").Result(); err == nil {
		t.Errorf("all %d bytes arrive", len(got))
	}
	proxy.Clear()

	works("after LimitData")
	proxy.Cut()
	for range 2 {
		if err := ping(); err == nil {
			t.Error("a cut connection answers")
		}
	}
	proxy.Mend()

	works("after Cut")
	proxy.Divert(Fake(t, Loading))
	if err := ping(); err == nil {
		t.Error("another server answers as the first")
	}
	proxy.Divert(server.Address)
	works("after Divert")
}
