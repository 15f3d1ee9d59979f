package control

import (
	"context"
	"errors"
	"time"

	"sallyport/certstore"
	"sallyport/policy/ratelimit"
)

const (
	// keepInterval is how often what was counted of day and month quotas is stored: so much a killed process loses.
	keepInterval = time.Second
	// keepPause is how much longer than the storing the pause is: it takes a twentieth of a processor at most.
	keepPause = 20
	// forgetInterval is how often quotas of past periods are removed from the store.
	forgetInterval = time.Hour
	// forgetAfter is how long after their end: a clock may be put back, and others may be behind.
	forgetAfter = 24 * time.Hour
	// lastPatience is how long a gateway that stops waits for the store to take the quotas.
	lastPatience = 5 * time.Second
)

// remember has quotas go on from what the store knows of their present periods.
func (l *Loop) remember(ctx context.Context, s *certstore.Store) error {
	if s == nil {
		return nil
	}
	return l.quotas(ctx, s, l.limits.Remember)
}

// recollect adds what the store knows of quotas to what was counted since a start without it. Nothing is stored before
// that: else it would be counted twice.
func (l *Loop) recollect(ctx context.Context, s *certstore.Store) error {
	if !l.forgetful {
		return nil
	}
	var records []ratelimit.Record // all or none: of a second reading those of the first would count once more
	if err := l.quotas(ctx, s, func(r ratelimit.Record) { records = append(records, r) }); err != nil {
		return err
	}
	for _, r := range records {
		l.limits.Remember(r)
	}
	l.limits.Recollect()
	l.forgetful = false
	return nil
}

func (l *Loop) quotas(ctx context.Context, s *certstore.Store, each func(ratelimit.Record)) error {
	return s.Quotas(ctx, l.cfg.Now(), func(q certstore.Quota) {
		unit, err := ratelimit.ParseUnit(q.Unit)
		if err != nil {
			return // nobody counts by it
		}
		each(ratelimit.Record{Tag: q.Tag, Unit: unit, Start: q.Start, End: q.End, Used: int(q.Used)})
	})
}

// keepQuotas stores what is counted of quotas until ctx ends.
func (l *Loop) keepQuotas(ctx context.Context) error {
	wait := keepInterval
	var forgotten time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		began := time.Now()
		l.keep(ctx, storePatience)
		if wait = keepInterval; !l.unkept { // a store that is away takes no processor
			wait = max(wait, keepPause*time.Since(began))
		}
		if s := l.inForce.Load().store; s != nil && !s.Foreign() && !l.unkept && time.Since(forgotten) >= forgetInterval {
			forgotten = time.Now()
			if err := s.ForgetQuotas(ctx, l.cfg.Now().Add(-forgetAfter)); err != nil && ctx.Err() == nil {
				l.log.Warn("quotas of past periods stay in the store", "error", err)
			}
		}
	}
}

// keep stores what was counted of quotas and has not been stored. A failure is logged once, and its end. A store that
// only reads is tried once.
func (l *Loop) keep(ctx context.Context, patience time.Duration) {
	s := l.inForce.Load().store
	if s == nil || l.unkept && s.Foreign() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := l.recollect(ctx, s)
	if err == nil {
		err = l.limits.Keep(func(records []ratelimit.Record) error {
			quotas := make([]certstore.Quota, len(records))
			for i, r := range records {
				quotas[i] = certstore.Quota{Tag: r.Tag, Unit: r.Unit.String(), Start: r.Start, End: r.End, Used: int64(r.Used)}
			}
			return s.KeepQuotas(ctx, quotas)
		})
	}
	switch failed := err != nil; {
	case failed && !l.unkept && errors.Is(err, certstore.ErrReadOnly):
		l.log.Warn("day and month quotas are not stored: each gateway counts for itself, and a restart begins anew", "reason", err)
	case failed && !l.unkept:
		l.log.Error("day and month quotas can't be stored: a restart would forget what is counted from now on", "error", err)
	case !failed && l.unkept:
		l.log.Info("day and month quotas are stored again")
	}
	l.unkept = err != nil
}
