package control

import (
	"context"

	"sallyport/policy/ratelimit"
)

// share makes the limits those that spec wants shared. They last as long as the loop.
func (l *Loop) share(spec *Spec) error {
	of := spec.RateLimit.Value
	if l.cfg.unshared {
		of.Redis = ratelimit.Redis{}
	}
	limits, err := ratelimit.New(ratelimit.Options{
		Redis: of.Redis, OnFailure: of.OnFailure, Timeout: of.Timeout, Now: l.cfg.Now, Faults: l.faults, Kept: true, ReadFile: l.cfg.readFile,
		Told: func(err error) {
			if err != nil {
				l.log.Error("limits can't be counted in Redis", "redis", of.Redis.String(), "error", err, "whenRedisFails", of.OnFailure.String())
				return
			}
			l.log.Info("limits are counted in Redis", "redis", of.Redis.String())
		},
	})
	if err != nil {
		return Problems{{Place: spec.RateLimit.Place, Message: "redis: " + err.Error()}}
	}
	l.limits = limits
	return nil
}

// connect waits for Redis, since the first calls should be counted there. A gateway starts without it, too.
func (l *Loop) connect(ctx context.Context, spec *Spec) {
	if len(spec.RateLimit.Value.Redis.Addresses) > 0 && !l.cfg.unshared {
		_ = l.limits.Connect(ctx) // it was told
	}
}

// Limits tells where calls are counted, and how that goes.
func (l *Loop) Limits() ratelimit.State { return l.limits.State() }
