package gateway

import (
	"errors"
	"fmt"
	"net"
	"syscall"
)

// Advise adds to the error of net.Listen what may be done about it.
func Advise(err error) error {
	for _, a := range []struct {
		cause  error
		advice string
	}{
		{syscall.EACCES, "ports below 1024 take a right: AmbientCapabilities=CAP_NET_BIND_SERVICE in a systemd unit, " +
			"or setcap cap_net_bind_service=+ep on the program; or take a port above"},
		{syscall.EADDRINUSE, "something else has this port: stop it, or take another port"},
		{syscall.EADDRNOTAVAIL, "this machine has no such address: take one of its own, or 0.0.0.0 for all"},
	} {
		if errors.Is(err, a.cause) {
			return fmt.Errorf("%w: %s", err, a.advice)
		}
	}
	unknown, none := (*net.DNSError)(nil), (*net.AddrError)(nil)
	if errors.As(err, &unknown) || errors.As(err, &none) {
		return fmt.Errorf("%w: name an address of this machine, or a host that its resolver knows", err)
	}
	return err
}
