package testredis

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"sallyport/internal/testserver"
)

func TestFake(t *testing.T) {
	for _, tt := range []struct {
		name string
		kind Kind
		ping string // part of the error; empty: none
		take string
	}{
		{"silent", Silent, "i/o timeout", "i/o timeout"},
		{"garbage", Garbage, "", "HTTP/1.1"},
		{"reset in the middle of a reply", ResetMidReply, "", "reset"},
		{"loading", Loading, "LOADING", "LOADING"},
		{"full", OOM, "", "OOM"},
		{"read-only", ReadOnly, "", "READONLY"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := options(Fake(t, tt.kind))
			o.MaxRetries, o.ReadTimeout = -1, testserver.Patience
			if tt.kind == Silent {
				o.ReadTimeout = 50 * time.Millisecond
			}
			client := connect(t, o)
			for what, got := range map[string]struct {
				err  error
				want string
			}{
				"ping":   {client.Ping(t.Context()).Err(), tt.ping},
				"script": {redis.NewScript(take).Run(t.Context(), client, []string{key}, 1).Err(), tt.take},
			} {
				if (got.err == nil) != (got.want == "") || got.err != nil && !strings.Contains(got.err.Error(), got.want) {
					t.Errorf("%s: %v, want %q", what, got.err, got.want)
				}
			}
		})
	}
}

func TestShifter(t *testing.T) {
	t.Parallel()
	server := Start(t, Options{})
	shifter := NewShifter(t, server.Address)
	o := options(shifter.Address)
	o.PoolSize, o.MaxRetries = 1, -1
	client := connect(t, o)
	echo := func(want, sent string) {
		t.Helper()
		if got, err := client.Echo(t.Context(), sent).Result(); got != want || err != nil {
			t.Errorf("echo of %s: %q, %v; want %q", sent, got, err, want)
		}
	}
	echo("one", "one")
	shifter.Shift()
	echo("one", "two")
	echo("two", "three")
	shifter.Mend()
	echo("three", "four")

	client = connect(t, o)
	echo("five", "five")

	conn, err := net.Dial("tcp", shifter.Address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	shifter.Withhold()
	if _, err := conn.Write(append(command([]string{"ECHO", "six"}), command([]string{"ECHO", "seven"})...)); err != nil {
		t.Fatal(err)
	}
	reply := make([]byte, len("$3\r\nsix\r\n"))
	if _, err := conn.Read(reply); err != nil || string(reply) != "$3\r\nsix\r\n" {
		t.Errorf("two requests are answered %q, %v", reply, err)
	}
	o.ReadTimeout = 50 * time.Millisecond
	if err := connect(t, o).Ping(t.Context()).Err(); err == nil || !strings.Contains(err.Error(), "timeout") {
		t.Errorf("a connection whose first reply is withheld: %v", err)
	}
}
