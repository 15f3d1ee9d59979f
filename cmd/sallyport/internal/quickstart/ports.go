package quickstart

import (
	"fmt"
	"net"
	"strconv"
)

// Ports are the TCP ports of the demonstration, all on 127.0.0.1.
type Ports struct {
	HTTPS        int // the gateway, for clients
	LoadBalancer int // the gateway, for load balancers that speak for clients
	Status       int // the gateway's health and metrics
	Backend      int // the demo backend, plain HTTP
	Issuer       int // the demo token issuer, plain HTTP
}

// The documented ports that are the lowest and the highest.
const lowest, highest = 8243, 9444

// PortsAt returns the documented ports with offset added to each. It fails, with ErrUsage, if one leaves 1..65535.
func PortsAt(offset int) (Ports, error) {
	if offset < 1-lowest || offset > 65535-highest {
		return Ports{}, fmt.Errorf("%w: port offset %d is outside %d to %d, in which every port stays within 1 and 65535",
			ErrUsage, offset, 1-lowest, 65535-highest)
	}
	return Ports{
		HTTPS:        lowest + offset,
		LoadBalancer: 8244 + offset,
		Status:       9091 + offset,
		Backend:      9000 + offset,
		Issuer:       highest + offset,
	}, nil
}

// offset is what was added to the documented ports.
func (p Ports) offset() int { return p.HTTPS - lowest }

// Free returns another offset than taken at which every port is free now; ok is false if none was found.
func Free(taken int) (offset int, ok bool) {
	for n := 1; n <= 20; n++ {
		ports, err := PortsAt(taken + n*1000)
		if err != nil {
			ports, err = PortsAt(taken - n*1000)
		}
		if err == nil && ports.free() {
			return ports.offset(), true
		}
	}
	return 0, false
}

func (p Ports) free() bool {
	for _, port := range []int{p.HTTPS, p.LoadBalancer, p.Status, p.Backend, p.Issuer} {
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			return false
		}
		l.Close()
	}
	return true
}
