package listenerprofiles

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"
)

// located gives each profile an address: one that names a host is there for every address that the host has here.
func (l *loader) located(profiles []written) (out []written, problems Problems) {
	taken := make(map[socketName]written)
	for _, s := range profiles {
		addrs := []netip.Addr{s.BindAddress}
		if s.BindHost != "" {
			var err error
			if addrs, err = l.addresses(s.BindHost); err != nil {
				problems = append(problems, l.place(s, PartError{s.Name, Part{Element: "bindAddress"}, err}))
				continue
			}
		}
		for _, s.BindAddress = range addrs {
			s.Name = profileName(s.Settings)
			where := socketName{s.BindAddress, s.ServerName}
			if other, ok := taken[where]; ok {
				err := fmt.Errorf("%s, in line %d, has that address already: keep one of them", other.Name, other.Line)
				problems = append(problems, l.place(s, PartError{s.Name, Part{Element: "bindAddress"}, err}))
				continue
			}
			taken[where] = s
			out = append(out, s)
		}
	}
	return out, problems
}

// addresses returns the addresses of this machine that a host name has, in order.
func (l *loader) addresses(host string) ([]netip.Addr, error) {
	if addrs, ok := l.hosts[host]; ok {
		return addrs, nil
	}
	addrs := []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}
	if host != "localhost" { // which needs no resolver (RFC 6761 section 6.3)
		found, err := l.cfg.LookupHost(host)
		if err != nil {
			return nil, fmt.Errorf("%w: name a host that this machine's resolver knows, or an IP address", err)
		}
		if addrs, err = local(found); err != nil {
			return nil, err
		}
		if len(addrs) == 0 {
			return nil, fmt.Errorf("the host has %v, none of which is an address of this machine: name one that is", found)
		}
	}
	l.hosts[host] = addrs
	return addrs, nil
}

// local returns those of addrs that this machine has, in order and each once.
func local(addrs []netip.Addr) (out []netip.Addr, err error) {
	interfaces, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("asking for this machine's addresses: %w", err)
	}
	for _, addr := range addrs {
		addr = addr.Unmap().WithZone("")
		here := addr.IsLoopback() || slices.ContainsFunc(interfaces, func(a net.Addr) bool {
			network, ok := a.(*net.IPNet)
			return ok && network.IP.Equal(addr.AsSlice())
		})
		if here {
			out = append(out, addr)
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out), nil
}

// lookupTimeout bounds how long a slow resolver holds up the loading of profiles.
const lookupTimeout = 5 * time.Second

// lookupHost asks the system's resolver.
func lookupHost(host string) ([]netip.Addr, error) {
	ctx, cancel := context.WithTimeout(context.Background(), lookupTimeout)
	defer cancel()
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	var failed *net.DNSError
	switch {
	case err == nil:
		return addrs, nil
	case errors.As(err, &failed) && failed.IsNotFound:
		return nil, errors.New("the host has no address")
	case errors.As(err, &failed):
		return nil, fmt.Errorf("looking up the host: %s", failed.Err)
	}
	return nil, fmt.Errorf("looking up the host: %w", err)
}
