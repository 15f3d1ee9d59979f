package peer

import (
	"fmt"

	"sallyport/bench/pki"
)

var haproxy = Kind{
	Name: "haproxy", Title: "HAProxy", Debian: "haproxy", program: "haproxy",
	version: []string{"-v"}, first: "HAProxy version",
	files: haproxyFiles,
	check: []string{"-c", "-q", "-f", "FOLDER/haproxy.cfg"},
	run:   []string{"-db", "-f", "FOLDER/haproxy.cfg"},
}

// A stick table limits each certificate, at a rate that is never reached. Connections to the backend are shared.
func haproxyFiles(s Site) map[string]string {
	global, defaults := "", ""
	if s.AccessLog {
		global, defaults = "log stdout format raw local0", "log global\n    option httplog"
	}
	return map[string]string{"haproxy.cfg": fmt.Sprintf(`global
    nbthread %d
    maxconn 30000
    no strict-limits
    tune.ssl.cachesize 100000
    ssl-default-bind-options ssl-min-ver TLSv1.2
    %s

defaults
    mode http
    %s
    timeout connect 10s
    timeout client 1h
    timeout server 1h
    timeout http-keep-alive 1h
    option http-keep-alive
    http-reuse always

backend clients
    stick-table type binary len 20 size 100k expire 10m store http_req_rate(1s)

frontend https
    bind %s ssl crt %s ca-file %s verify required alpn h2,http/1.1 curves X25519 backlog 4096
    http-request track-sc0 ssl_c_der,sha1 table clients
    http-request deny deny_status 429 if { sc_http_req_rate(0) gt 1000000000 }
    default_backend servers

frontend balancer
    bind %s backlog 4096
    default_backend servers

backend servers
    server one %s
`, s.Workers, global, defaults, s.HTTPS, s.within(pki.Server), s.within(pki.CA), s.HTTP, s.Backend)}
}
