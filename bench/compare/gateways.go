package compare

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"sallyport/bench/peer"
	"sallyport/bench/redis"
)

// A started gateway is idle but for the calls of a measurement.
type started struct {
	*peer.Gateway
	reading float64 // objects that it allocates when its metrics are read
}

// open starts the gateways of a scenario and, where limits are counted in it, Redis. stop stops what was started, even
// after an error.
func (r *run) open(ctx context.Context, s Scenario, list []contestant) (
	gateways map[instance]started, stop func() error, err error,
) {
	var stops []func() error
	stop = func() (err error) {
		for _, f := range slices.Backward(stops) {
			err = errors.Join(err, f())
		}
		return err
	}
	var limits peer.Redis
	if s.Redis {
		server, err := redis.Start(ctx, r.Folder, r.LoadCores)
		if err != nil {
			return nil, stop, err
		}
		stops = append(stops, server.Stop)
		limits.Address = server.Address
	}
	gateways = map[instance]started{}
	for _, c := range list {
		if _, ok := gateways[c.instance]; ok {
			continue
		}
		g, err := r.start(ctx, c, filepath.Join(r.Folder, s.Name, c.name), limits)
		if err != nil {
			return nil, stop, err
		}
		stops = append(stops, g.Stop)
		gateways[c.instance] = started{Gateway: g}
	}
	for i, g := range gateways {
		if g.reading, err = readingCost(ctx, g.Gateway); err != nil {
			return nil, stop, err
		}
		gateways[i] = g
	}
	return gateways, stop, nil
}

// counted checks that gateways whose limits are in Redis counted there.
func (r *run) counted(ctx context.Context, s Scenario, gateways map[instance]started) error {
	for i, g := range gateways {
		if !i.redis {
			continue
		}
		v, err := g.Metrics(ctx, "sallyport_limits_exchanges_total", "sallyport_limits_uncounted_total")
		if err != nil {
			return err
		}
		if v[0] == 0 {
			return fmt.Errorf("%s did not count its limits in Redis", g.Title)
		}
		if v[1] > 0 {
			r.Progress.Say("%s: %s decided %.0f calls without Redis, which did not answer in time", s.Name, g.Title, v[1])
		}
	}
	return nil
}

// start starts the gateway of a contestant, with its files in a folder.
func (r *run) start(ctx context.Context, c contestant, folder string, counted peer.Redis) (*peer.Gateway, error) {
	addresses, err := peer.Addresses(3)
	if err != nil {
		return nil, err
	}
	site := peer.Site{
		Folder:    folder,
		PKI:       r.pki,
		Backend:   r.backend,
		HTTPS:     addresses[0],
		HTTP:      addresses[1],
		Status:    addresses[2],
		Workers:   r.Workers,
		AccessLog: r.AccessLog,
	}
	if c.redis {
		site.Redis = counted
	}
	site.Revoked = c.revoked
	p := r.Programs[c.program]
	if err := p.Configure(site); err != nil {
		return nil, err
	}
	return p.Start(ctx, site, r.GatewayCores)
}
