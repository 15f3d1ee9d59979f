package peer

import (
	"fmt"
	"net"

	"sallyport/bench/pki"
)

var caddy = Kind{
	Name: "caddy", Title: "Caddy", Debian: "caddy", program: "caddy",
	version: []string{"version"},
	files:   caddyFiles,
	check:   []string{"validate", "--config", "FOLDER/Caddyfile", "--adapter", "caddyfile"},
	run:     []string{"run", "--config", "FOLDER/Caddyfile", "--adapter", "caddyfile"},
}

// Caddy has no rate limit of its own, so it runs without one.
func caddyFiles(s Site) map[string]string {
	access := ""
	if s.AccessLog {
		access = "log {\n\t\toutput file access.log\n\t}"
	}
	port := func(address string) string {
		_, p, _ := net.SplitHostPort(address) // our own addresses always have a port
		return p
	}
	return map[string]string{"Caddyfile": fmt.Sprintf(`{
	admin off
	auto_https off
	log {
		level ERROR
	}
	servers {
		protocols h1 h2
		timeouts {
			idle 1h
		}
	}
}
(backend) {
	%s
	reverse_proxy %s {
		transport http {
			keepalive 1h
			keepalive_idle_conns 4096
			keepalive_idle_conns_per_host 4096
			compression off
		}
	}
}
https://localhost:%s {
	bind 127.0.0.1
	tls %s %s {
		curves x25519
		client_auth {
			mode require_and_verify
			trusted_ca_cert_file %s
		}
	}
	import backend
}
http://localhost:%s {
	bind 127.0.0.1
	import backend
}
`, access, s.Backend, port(s.HTTPS), s.within("server.crt"), s.within("server.key"), s.within(pki.CA), port(s.HTTP))}
}
