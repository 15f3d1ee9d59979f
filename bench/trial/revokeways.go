package trial

import (
	"context"
	"crypto/x509"
	"errors"
	"time"

	"sallyport/bench/live"
	"sallyport/bench/peer"
)

// end ends the right of a way's members, and notes when the gateway can know.
func (v *revoking) end(ctx context.Context, way Way) error {
	members := v.of(way)
	switch way {
	case Removal:
		return each(members, func(m *member) error {
			return command(ctx, v.gateway, "cert", "remove", "--api", peer.API, "--alias", m.Name)
		})
	case DenyList:
		return each(members, func(m *member) error {
			return command(ctx, v.gateway, "cert", "deny", "add", "--certificate", v.file(m))
		})
	case CRLFile:
		return together(members, func() error { return v.writeList(CRLFile, 2, certificates(members)) })
	case CARemoval:
		return together(members, func() error { return v.writeTrust(false) })
	case CRLAddress:
		if err := together(members, func() error { return v.publisher.replaceList(certificates(members)) }); err != nil {
			return err
		}
		return v.asked(ctx, members, func(*x509.Certificate) time.Time { return v.publisher.listShown() })
	case OCSP:
		now := time.Now()
		for _, m := range members {
			m.acted = now
		}
		v.publisher.revoke(certificates(members))
		return v.asked(ctx, members, v.publisher.told)
	case Expiry: // by itself
		if !pause(ctx, time.Until(members[0].known)) {
			return ctx.Err()
		}
		return nil
	}
	return errors.New("no such way")
}

// each ends one right after the other, each of which can be known as soon as end returns.
func each(members []*member, end func(*member) error) error {
	for _, m := range members {
		m.acted = time.Now()
		if err := end(m); err != nil {
			return err
		}
		m.known = time.Now()
	}
	return nil
}

// together ends all rights at once.
func together(members []*member, end func() error) error {
	began := time.Now()
	for _, m := range members {
		m.acted = began
	}
	err := end()
	for _, m := range members {
		m.known = time.Now()
	}
	return err
}

// asked waits until the gateway has asked about each of the members.
func (v *revoking) asked(ctx context.Context, members []*member, when func(*x509.Certificate) time.Time) error {
	for _, m := range members {
		if err := await(ctx, "the gateway asks for what is new", longest, func() (bool, error) {
			m.known = when(m.Identity.Leaf)
			return !m.known.IsZero(), nil
		}); err != nil {
			return err
		}
	}
	return nil
}

// giveBack gives the members of a way their right back.
func (v *revoking) giveBack(ctx context.Context, way Way) error {
	for _, m := range v.of(way) {
		m.again = time.Now()
		err := error(nil)
		if way == Removal {
			err = v.register(ctx, m)
		} else {
			err = command(ctx, v.gateway, "cert", "deny", "remove", "--certificate", v.file(m))
		}
		if err != nil {
			return err
		}
		m.returned = time.Now()
	}
	return nil
}

// await waits until all connections of members have done something, but not much longer than they may take.
func (v *revoking) await(ctx context.Context, members []*member, since func(*member) time.Time, done func(*member, *live.Connection) bool) error {
	late := time.Time{}
	for _, m := range members {
		if at := since(m).Add(2*v.Limit + 2*reopened); at.After(late) {
			late = at
		}
	}
	for time.Now().Before(late) {
		if all(members, done) {
			return nil
		}
		if !pause(ctx, 5*time.Millisecond) {
			return ctx.Err()
		}
	}
	return nil // judge tells who has not
}

func all(members []*member, done func(*member, *live.Connection) bool) bool {
	for _, m := range members {
		for _, c := range m.list {
			if !done(m, c) {
				return false
			}
		}
	}
	return true
}

// ended reports whether a connection has ended since its right did.
func ended(m *member, c *live.Connection) bool {
	for _, p := range c.Periods() {
		if !p.Served && !p.Began.Before(m.acted) {
			return true
		}
	}
	return false
}

// isBack reports whether a connection is served since its right is back.
func isBack(m *member, c *live.Connection) bool {
	for _, p := range c.Periods() {
		if p.Served && !p.Began.Before(m.again) {
			return true
		}
	}
	return false
}
