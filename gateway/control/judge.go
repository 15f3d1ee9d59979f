package control

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"
)

var errRestless = errors.New("the files are still being changed; the next look tries again")

// consider judges t if it agrees with the attempt before it. Otherwise t waits to be looked at again, unless its files
// have kept changing for too long.
func (l *Loop) consider(ctx context.Context, t *attempt) error {
	now := time.Now()
	rested, restless := l.rested(t)
	switch {
	case len(restless) == 0: // also if nothing is new
		l.pending = nil
		l.judge(ctx, t)
	case l.pending != nil && now.Sub(t.began)+l.cfg.settle > settleAtMost:
		l.pending = nil
		for _, name := range restless {
			l.source(name).restless = true
		}
		if len(rested) > 0 { // the others need not wait for them
			if alone := l.look(rested, t); alone.sameAs(t) {
				l.judge(ctx, alone)
			}
		}
		return errRestless
	default:
		if l.pending == nil {
			t.began = now
		}
		t.again = now.Add(l.cfg.settle)
		l.pending = t
	}
	return nil
}

// rested returns the sources with news that the attempt before t has found too, and those with other news.
func (l *Loop) rested(t *attempt) (rested map[string]bool, restless []string) {
	rested = map[string]bool{}
	for name, f := range t.found {
		s := l.source(name)
		switch {
		case f.content == s.judged:
			s.restless = false
		case l.pending != nil && l.pending.found[name].content == f.content:
			rested[name] = true
		default:
			restless = append(restless, name)
		}
	}
	return rested, restless
}

// judge puts what is good in t into force by one swap and reports the rest. If the Spec cannot come into force, since a
// port is taken or the store does not open, the other sources are looked at again without it.
func (l *Loop) judge(ctx context.Context, t *attempt) {
	last := l.inForce.Load()
	var err error
	if t.rebuilt {
		err = t.next.open(ctx, last, l.storeOptions())
	}
	if err == nil && t.next != last {
		if err = l.put(t.next); err != nil && t.next.store != last.store {
			err = errors.Join(err, t.next.Close())
		}
	}
	if t.rebuilt && err != nil {
		l.tell(configuration, faulty(err, nil), t, last)
		if delete(t.fresh, configuration); len(t.fresh) > 0 {
			others := l.look(t.fresh, nil)
			others.apart = true
			_ = l.consider(ctx, others) // restless only after a second look
		}
		return
	}
	if err == nil && t.next != last {
		l.warnOfStores(last)
	}
	if t.rebuilt {
		l.unread = l.unread && t.next.store == last.store
		if l.attend(); !l.unread && len(t.next.registered.unreadable) == 0 {
			l.board.mended(store) // open has found no conflict with the files
		}
		l.follow(ctx, last)
		l.tellClients(last, false)
	}
	for _, name := range slices.Sorted(maps.Keys(t.found)) { // the configuration first
		f := t.found[name]
		if err != nil && f.err == nil {
			f = faulty(err, nil)
		}
		l.tell(name, f, t, last)
	}
	if _, ok := t.found[configuration]; ok && (t.rebuilt || len(l.waiting) > 0) {
		l.tellFences(last, len(l.waiting) > 0)
	}
}

// tell reports a finding if it is news. In a Reload it also repeats what is broken, and that the configuration is good.
func (l *Loop) tell(name string, f finding, t *attempt, last *Assembly) {
	s, asked := l.source(name), len(l.waiting) > 0
	news := f.content != s.judged
	s.restless, s.judged = false, f.content
	set := t.next.sets[s.listener]
	switch {
	case f.err != nil && (news || asked):
		l.refuse(name, s.listener, f.err)
	case f.err != nil, !news && (name != configuration || !asked):
	case name == configuration && (t.rebuilt || asked):
		l.board.good(name)
		l.log.Info("the configuration was reloaded", "apis", len(t.next.Spec.APIs))
		if fixed := needsRestart(last, t.next); fixed != "" {
			l.log.Warn("a change of the configuration takes effect with the next start only", "keys", fixed)
		}
	case name == configuration, set == last.sets[s.listener]: // back to what it was before it broke
		if l.board.mended(name) {
			l.log.Info("mended: what was refused is good again, and nothing has changed", "source", name)
		}
	default:
		l.board.good(name)
		for _, g := range set.Gone(last.sets[s.listener]) {
			l.log.Warn("a listener profile is gone, and one that is as strict serves its clients",
				"listener", s.listener, "profile", g.Profile.Name, "by", g.By.Name)
		}
		digest := set.Digest()
		l.log.Info("listener profiles loaded",
			"listener", s.listener, "profiles", len(set.Profiles())-1, "digest", fmt.Sprintf("%x", digest[:8]))
	}
}

func (l *Loop) refuse(name, listener string, err error) {
	l.board.bad(name, err)
	message, more := "the configuration was not reloaded; the last good one serves on", []any{}
	if listener != "" {
		message = "listener profiles were not reloaded; the last good ones serve on"
		more = []any{"listener", listener}
	}
	for line := range strings.SplitSeq(err.Error(), "\n") {
		l.log.Error(message, append(more, "error", line)...)
	}
}

// answer ends the calls of Reload that wait for this look, with err and everything that is broken.
func (l *Loop) answer(err error) {
	if len(l.waiting) == 0 {
		return
	}
	for _, s := range l.board.list() {
		if s.Broken != nil && (l.sources[s.Name] != nil || strings.HasPrefix(s.Name, apiFileOf(""))) {
			err = errors.Join(err, fmt.Errorf("%s: %w", s.Name, s.Broken))
		}
	}
	for _, done := range l.waiting {
		done <- err
	}
	l.waiting = nil
}

// needsRestart returns the keys of the Fixed settings that differ, or of which a file differs.
func needsRestart(old, new *Assembly) string {
	var keys []string
	for _, key := range slices.Sorted(maps.Keys(new.Spec.Fixed)) {
		if !reflect.DeepEqual(old.Spec.Fixed[key], new.Spec.Fixed[key]) {
			keys = append(keys, key)
		}
	}
	file := new.Spec.RateLimit.Value.Redis.CAFile
	if !slices.Contains(keys, "rateLimit") && file != "" && old.read[file] != new.read[file] {
		keys = append(keys, "rateLimit")
	}
	return strings.Join(keys, ", ")
}
