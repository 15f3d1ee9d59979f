package gateway_test

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"sallyport/gateway/backend"
)

// h2cBackend is a backend that speaks HTTP/2 in the clear and nothing else.
func h2cBackend(t testing.TB, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(s.Close)
	return s.URL
}

// h2Backend is a backend that speaks HTTP/2 over TLS and demands a certificate of ours.
func h2Backend(t testing.TB, h http.HandlerFunc, clients *party) string {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	pool := x509.NewCertPool()
	pool.AddCert(clients.cert)
	s.TLS = &tls.Config{
		Certificates: []tls.Certificate{*issue("b", theWorld().serverCA, server("b.test")).tls()},
		ClientAuth:   tls.RequireAndVerifyClientCert, ClientCAs: pool,
	}
	s.EnableHTTP2 = true
	s.Config.ErrorLog = nil
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.URL
}

// overTLS makes the upstream one that is verified by the world's server CA and shown that certificate.
func overTLS(up backend.Upstream, show *party) backend.Upstream {
	up.Roots = x509.NewCertPool()
	up.Roots.AddCert(theWorld().serverCA.cert)
	digest := theWorld().serverCA.cert.Raw
	if show != nil {
		up.Certificates = []tls.Certificate{*show.tls()}
		digest = append(digest[:len(digest):len(digest)], show.cert.Raw...)
	}
	up.TLSDigest = sha256.Sum256(digest)
	return up
}

// gRPC as it is on the wire: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md.

func writeMessage(w io.Writer, text string) error {
	_, err := w.Write(append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(text))), text...))
	return err
}

func readMessage(r io.Reader) (string, error) {
	head := make([]byte, 5)
	if _, err := io.ReadFull(r, head); err != nil {
		return "", err
	}
	text := make([]byte, binary.BigEndian.Uint32(head[1:]))
	_, err := io.ReadFull(r, text)
	return string(text), err
}

// grpcBackend serves the four kinds of call on texts.
func grpcBackend(w http.ResponseWriter, r *http.Request) {
	h, flush := w.Header(), http.NewResponseController(w).Flush
	if r.ProtoMajor != 2 || r.Header.Get("Te") != "trailers" || r.Header.Get("Content-Type") != "application/grpc" || r.Header.Get("X-Sallyport-Client") != "a4" {
		http.Error(w, fmt.Sprint(r.Proto, r.Header), http.StatusBadRequest)
		return
	}
	h.Set("Content-Type", "application/grpc")
	status := func(code string) { h.Set(http.TrailerPrefix+"Grpc-Status", code) }
	switch kind := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]; kind {
	case "Unary", "ServerStream":
		text, err := readMessage(r.Body)
		if err != nil {
			status("13")
			return
		}
		n := 1
		if kind == "ServerStream" {
			n = 3
		}
		for i := range n {
			_ = writeMessage(w, text+strconv.Itoa(i))
			_ = flush()
		}
	case "ClientStream":
		var all []string
		for {
			text, err := readMessage(r.Body)
			if err != nil {
				break
			}
			all = append(all, text)
		}
		_ = writeMessage(w, strings.Join(all, "+"))
	case "Bidi":
		w.WriteHeader(200)
		_ = flush() // the client waits for it before it says anything
		for {
			text, err := readMessage(r.Body)
			if err != nil {
				break
			}
			_ = writeMessage(w, strings.ToUpper(text))
			_ = flush()
		}
	case "Missing": // an answer of trailers only
		h.Set("Grpc-Status", "12")
		return
	case "Deadline":
		if r.Header.Get("Grpc-Timeout") != "" {
			<-r.Context().Done()
		}
		return
	}
	h.Set(http.TrailerPrefix+"Grpc-Message", "fine")
	status("0")
}

// TestGRPC: unary calls and streams in each direction and both pass through HTTP/2 on both sides, message by message,
// with their trailers; a deadline of the client ends the backend's call.
func TestGRPC(t *testing.T) {
	ours := issue("gateway", theWorld().caB)
	arrived, ended := make(chan struct{}), make(chan struct{}, 8)
	handler := func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "Deadline") {
			arrived <- struct{}{}
		}
		grpcBackend(w, r)
		if strings.HasSuffix(r.URL.Path, "Deadline") || strings.HasSuffix(r.URL.Path, "Bidi") {
			ended <- struct{}{}
		}
	}
	f := newFixture(t, func(f *fixture, s *setup) {
		h2c, h2 := f.upstream(t, h2cBackend(t, handler)), overTLS(f.upstream(t, h2Backend(t, handler, theWorld().caB)), ours)
		h2c.Protocol, h2.Protocol = backend.H2C, backend.HTTP2
		s.routes[0].Upstream, s.routes[1].Upstream = h2c, h2
	})
	for _, api := range []string{"pay", "both"} {
		t.Run(api, func(t *testing.T) {
			c := f.client(t, f.a4, via{http2: true})
			begin := func(ctx context.Context, kind string) (*http.Response, *io.PipeWriter) {
				t.Helper()
				reader, writer := io.Pipe()
				r, err := http.NewRequestWithContext(ctx, "POST", "https://mtls.test/"+api+"/1.0/texts.Echo/"+kind, reader)
				if err != nil {
					t.Fatal(err)
				}
				r.Header = http.Header{"Content-Type": {"application/grpc"}, "Te": {"trailers"}}
				if kind == "Deadline" {
					r.Header.Set("Grpc-Timeout", "100m")
				}
				if kind != "Bidi" && kind != "Deadline" {
					go func() {
						defer writer.Close()
						_ = writeMessage(writer, "a")
						if kind == "ClientStream" {
							_ = writeMessage(writer, "b")
							_ = writeMessage(writer, "c")
						}
					}()
				}
				res, err := c.Do(r)
				if err != nil {
					if kind == "Deadline" {
						return nil, writer
					}
					t.Fatal(err)
				}
				t.Cleanup(func() { res.Body.Close() })
				return res, writer
			}
			for kind, want := range map[string][]string{"Unary": {"a0"}, "ServerStream": {"a0", "a1", "a2"}, "ClientStream": {"a+b+c"}} {
				res, _ := begin(t.Context(), kind)
				for _, text := range want {
					if got, err := readMessage(res.Body); err != nil || got != text {
						t.Errorf("%s: %q, %v (status %d)", kind, got, err, res.StatusCode)
					}
				}
				if _, err := readMessage(res.Body); err != io.EOF {
					t.Errorf("%s: at its end %v", kind, err)
				}
				if res.Trailer.Get("Grpc-Status") != "0" || res.Trailer.Get("Grpc-Message") != "fine" {
					t.Errorf("%s: trailers %v", kind, res.Trailer)
				}
			}
			talk := func(text string, res *http.Response, w io.Writer) {
				t.Helper()
				go func() { _ = writeMessage(w, text) }()
				if got, err := readMessage(res.Body); err != nil || got != strings.ToUpper(text) {
					t.Fatalf("%q, %v", got, err)
				}
			}
			res, writer := begin(t.Context(), "Bidi")
			for i := range 5 {
				talk(fmt.Sprint("message ", i), res, writer)
			}
			writer.Close()
			if _, err := readMessage(res.Body); err != io.EOF || res.Trailer.Get("Grpc-Status") != "0" {
				t.Errorf("at the end %v, trailers %v", err, res.Trailer)
			}
			<-ended
			res, _ = begin(t.Context(), "Missing")
			if _, err := io.Copy(io.Discard, res.Body); err != nil || res.Header.Get("Grpc-Status") != "12" {
				t.Errorf("trailers only: %v, %v", res.Header, err)
			}
			// The client gives up.
			ctx, cancel := context.WithCancel(t.Context())
			go func() {
				<-arrived
				cancel()
			}()
			_, writer = begin(ctx, "Deadline")
			<-ended
			writer.Close()
			// The certificate's right ends.
			res, writer = begin(t.Context(), "Bidi")
			talk("before", res, writer)
			saved := f.clients
			f.remove(t, "a4")
			if got, err := readMessage(res.Body); err == nil || errors.Is(err, io.EOF) {
				t.Errorf("after it: %q, %v", got, err)
			}
			<-ended
			writer.Close()
			f.clients = saved
			f.setClients(t)
		})
	}
}

// TestUpstreamCertificate: a backend that demands a certificate gets the one that is configured for it, no other backend
// does, and a new one is shown to it with the next table. Held: security K 143 for our own certificate.
func TestUpstreamCertificate(t *testing.T) {
	w := theWorld()
	shown := func(wr http.ResponseWriter, r *http.Request) {
		if len(r.TLS.PeerCertificates) > 0 {
			wr.Header().Set("X-Shown", r.TLS.PeerCertificates[0].Subject.CommonName)
		}
		wr.Header().Set("X-Proto", r.Proto)
	}
	demanding := h2Backend(t, shown, w.caB)
	indifferent := httptest.NewUnstartedServer(http.HandlerFunc(shown))
	indifferent.TLS = &tls.Config{Certificates: []tls.Certificate{*issue("b", w.serverCA, server("b.test")).tls()}, ClientAuth: tls.RequestClientCert}
	indifferent.StartTLS()
	t.Cleanup(indifferent.Close)
	first, second, wrong := issue("first", w.caB), issue("second", w.caB), issue("wrong", w.caA)
	f := newFixture(t, func(f *fixture, s *setup) {
		s.routes[3].Upstream = overTLS(f.upstream(t, demanding), first)
		s.routes[0].Upstream = overTLS(f.upstream(t, indifferent.URL), nil)
	})
	c := f.client(t, nil, via{})
	for _, protocol := range []backend.Protocol{backend.HTTP1, backend.HTTP2} {
		for _, show := range []*party{first, second} {
			f.routes[3].Upstream = overTLS(f.upstream(t, demanding), show)
			f.routes[3].Upstream.Protocol = protocol
			f.setRoutes(t)
			a := get(t, c, "https://open.test/pub/1.0/x")
			if a.status != 200 || a.header.Get("X-Shown") != show.cert.Subject.CommonName || strings.HasPrefix(a.header.Get("X-Proto"), "HTTP/2") != (protocol == backend.HTTP2) {
				t.Errorf("status %d, %v", a.status, a.header)
			}
		}
		for _, show := range []*party{wrong, nil} {
			f.routes[3].Upstream = overTLS(f.upstream(t, demanding), show)
			f.routes[3].Upstream.Protocol = protocol
			f.setRoutes(t)
			get(t, c, "https://open.test/pub/1.0/x").refused(t, 502, "101503")
		}
		// The chain of a backend is verified for HTTP/2, too.
		up := overTLS(f.upstream(t, demanding), first)
		up.Roots, up.TLSDigest, up.Protocol = x509.NewCertPool(), sha256.Sum256(nil), protocol
		up.Roots.AddCert(w.caA.cert)
		f.routes[3].Upstream = up
		f.setRoutes(t)
		get(t, c, "https://open.test/pub/1.0/x").refused(t, 502, "101503")
	}
	if a := get(t, f.client(t, f.a4, via{}), "https://mtls.test/pay/1.0/x"); a.status != 200 || a.header.Get("X-Shown") != "" {
		t.Errorf("another backend: status %d, it was shown %q", a.status, a.header.Get("X-Shown"))
	}
}
