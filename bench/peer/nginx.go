package peer

import (
	"fmt"
	"os"

	"sallyport/bench/pki"
)

var nginx = Kind{
	Name: "nginx", Title: "NGINX", Debian: "nginx-light", program: "nginx",
	version: []string{"-v"}, first: "nginx/",
	files: nginxFiles,
	check: []string{"-t", "-q", "-p", "FOLDER", "-c", "nginx.conf", "-e", "error.log"},
	run:   []string{"-p", "FOLDER", "-c", "nginx.conf", "-e", "error.log"},
}

// Each certificate has a limit that is never reached. Session tickets are on, proxy buffers are 16 KiB instead of 4,
// and kept connections never expire.
func nginxFiles(s Site) map[string]string {
	user := ""
	if os.Geteuid() == 0 {
		user = "user root;" // the owner of the folder
	}
	access := "off"
	if s.AccessLog {
		access = "access.log combined buffer=64k flush=1s"
	}
	return map[string]string{"nginx.conf": fmt.Sprintf(`daemon off;
%s
worker_processes %d;
worker_rlimit_nofile 65536;
pid nginx.pid;
error_log error.log warn;
events {
    worker_connections 60000;
}
http {
    access_log %s;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;

    keepalive_timeout 1h;
    keepalive_requests 1000000000;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_buffer_size 16k;
    proxy_buffers 8 16k;
    proxy_max_temp_file_size 0;
    limit_req_zone $ssl_client_fingerprint zone=clients:16m rate=1000000r/s;

    upstream backend {
        server %s;
        keepalive 4096;
        keepalive_requests 1000000000;
        keepalive_timeout 1h;
    }
    server {
        listen %s ssl http2 backlog=4096;
        ssl_certificate %s;
        ssl_certificate_key %[6]s;
        ssl_client_certificate %[7]s;
        ssl_verify_client on;
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_ecdh_curve X25519;
        ssl_session_cache shared:sessions:10m;
        ssl_session_tickets on;
        limit_req zone=clients burst=1000000 nodelay;
        location / {
            proxy_pass http://backend;
        }
    }
    server {
        listen %[8]s backlog=4096;
        location / {
            proxy_pass http://backend;
        }
    }
}
`, user, s.Workers, access, s.Backend, s.HTTPS, s.within(pki.Server), s.within(pki.CA), s.HTTP)}
}
