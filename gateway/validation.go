package gateway

import (
	"crypto/tls"
	"errors"

	"sallyport/listenerprofiles"
)

// validationProtocol is what a CA speaks that validates a name by TLS-ALPN-01 (RFC 8737 section 6.2).
const validationProtocol = "acme-tls/1"

// isValidation reports whether a hello is a CA's that validates a name: one that offers anything else is a client's.
func isValidation(hello *tls.ClientHelloInfo) bool {
	return len(hello.SupportedProtos) == 1 && hello.SupportedProtos[0] == validationProtocol
}

var errNoValidation = errors.New("tls: client requested unsupported application protocols (a validation of a name that none is pending for)")

// validationConfig has the handshake of a validation show the certificate that answers it, ask for none and leave no
// ticket. Nothing but the handshake is carried. Without a pending validation it is an error.
func validationConfig(p *listenerprofiles.Profile, hello *tls.ClientHelloInfo) (*tls.Config, error) {
	if p.Challenge == nil {
		return nil, errNoValidation
	}
	cert, err := p.Challenge(hello.Context(), listenerprofiles.NormalizeName(hello.ServerName))
	if err != nil {
		return nil, errors.Join(errNoValidation, err)
	}
	return &tls.Config{
		Certificates:           []tls.Certificate{*cert},
		MinVersion:             tls.VersionTLS12, // RFC 8737 section 3
		NextProtos:             []string{validationProtocol},
		SessionTicketsDisabled: true,
	}, nil
}
