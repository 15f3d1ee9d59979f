package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"

	"sallyport/gateway/wire"
	"sallyport/listenerprofiles"
)

// refusedBy are the words for what crypto/tls has no errors to compare for, by how these begin. Of what it doesn't say
// here it is malformed. TestHandshakeReasons notices when a text is another one by now.
var refusedBy = []struct{ text, reason string }{
	{"tls: client didn't provide a certificate", "no_certificate"},
	{"tls: failed to parse client certificate", "certificate_unparseable"},
	{"tls: client certificate contains an unsupported public key", "certificate_key"},
	{"tls: client sent certificate containing RSA key larger", "certificate_key"},
	{"tls: client certificate used with invalid signature algorithm", "certificate_signature"},
	{"tls: invalid signature by the client certificate", "certificate_signature"},
	{"tls: client offered only unsupported versions", "protocol_version"},
	{"tls: client offered TLS version older", "protocol_version"},
	{"tls: no cipher suite supported by both", "no_shared_cipher"},
	{"tls: no key exchanges supported by both", "no_shared_group"},
	{"tls: no supported elliptic curves offered", "no_shared_group"},
	{"tls: peer doesn't support any of the certificate's signature algorithms", "no_shared_signature"},
	{"tls: client requested unsupported application protocols", "no_shared_application_protocol"},
	{"tls: handshake message of length", "certificate_too_large"},
}

// handshakeReason is the word for why a handshake has failed, for metrics and the log.
func handshakeReason(err error) string {
	var judged *listenerprofiles.Refused
	var network *net.OpError
	switch {
	case errors.As(err, &judged):
		return "certificate_" + judged.Why
	case errors.Is(err, listenerprofiles.ErrNoServerCertificate):
		return "no_server_certificate"
	case errors.Is(err, wire.ErrBound):
		return "certificate_too_large"
	case errors.As(err, new(tls.RecordHeaderError)):
		return "not_tls"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return "timeout"
	case errors.Is(err, context.Canceled):
		return "stopping"
	case errors.As(err, &network) && network.Op == "remote error": // an alert: what the client makes of this side
		return "refused_by_client"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed),
		errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "gone"
	}
	for _, by := range refusedBy {
		if strings.HasPrefix(err.Error(), by.text) {
			return by.reason
		}
	}
	return "malformed"
}
