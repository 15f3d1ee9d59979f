package revocation

import (
	"errors"
	"fmt"
	"hash/maphash"
	"io/fs"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"sallyport/internal/printable"
	"sallyport/internal/regularfile"
)

// Kind is what a source is.
type Kind string

// The kinds of sources.
const (
	File              Kind = "file"
	Address           Kind = "url"               // of Policy.CRL
	DistributionPoint Kind = "distributionPoint" // that a certificate or a CRL names
	Responder         Kind = "ocsp"
)

// A held list is one that is in force. Each look at its source tells when it was last seen there.
type held struct {
	*list
	at   string       // its source
	seen atomic.Int64 // Unix nanoseconds
	kept atomic.Bool  // it is not there any more
	by   atomic.Pointer[issuer]
	not  atomic.Pointer[[]*issuer] // whose list it is not
}

// signedBy reports whether a list is signed by an issuer. A signature is checked once for each.
func (h *held) signedBy(i *issuer) bool {
	if h.name != i.name {
		return false
	}
	if by := h.by.Load(); by != nil {
		return by.same(i)
	}
	not := h.not.Load()
	if not != nil {
		for _, n := range *not {
			if n == i {
				return false
			}
		}
	}
	if h.check(i) == nil {
		h.by.Store(i)
		return true
	}
	var more []*issuer
	if not != nil && len(*not) < maxIssuers {
		more = append(more, *not...)
	}
	more = append(more, i)
	h.not.CompareAndSwap(not, &more)
	return false
}

// until is the end of what a list says: its nextUpdate, or maxAge after it was last seen at its source. A list without
// a nextUpdate says something for maxAge, or for a day, after its thisUpdate: else one that is replayed would count
// for ever.
func (h *held) until(maxAge time.Duration) time.Time {
	end := h.nextUpdate
	if end.IsZero() {
		age := withoutNextUpdate
		if maxAge > 0 {
			age = maxAge
		}
		end = h.thisUpdate.Add(age)
	}
	if maxAge > 0 {
		if aged := time.Unix(0, h.seen.Load()).Add(maxAge); aged.Before(end) {
			end = aged
		}
	}
	return end
}

const (
	withoutNextUpdate = 24 * time.Hour
	skew              = 5 * time.Minute // of others' clocks
)

// A source is where CRLs come from: a file or an address. Checkers that name the same one share it.
type source struct {
	location string
	kind     Kind
	host     string // for bounds; "" of files

	asking
	used
	lists   atomic.Pointer[[]*held] // in force; what it points to never changes
	problem atomic.Pointer[problem]
	maxAge  atomic.Int64     // the shortest of the policies that look here; 0: none has one
	told    map[string]*held // lists that the log has said are stale, by series; belongs to Run

	// What follows belongs to who has begun to ask.
	stat     fs.FileInfo
	statAt   time.Time // when the file was last read
	content  uint64    // hash of what was last read
	good     bool      // it was a CRL
	etag     string
	modified string
}

// A problem is why the last look at a source was in vain.
type problem struct {
	err   error
	since time.Time
}

func (s *source) current() []*held {
	if lists := s.lists.Load(); lists != nil {
		return *lists
	}
	return nil
}

func (s *source) size() int {
	n := 0
	for _, h := range s.current() {
		n += 8 * (len(h.revoked) + len(h.removed))
	}
	return n
}

// until is the end of what a list says by the strictest of the policies that look here.
func (s *source) until(h *held) time.Time { return h.until(time.Duration(s.maxAge.Load())) }

// counts reports whether a list says something at now.
func (s *source) counts(h *held, now time.Time) bool { return now.Before(s.until(h)) }

// isStale reports whether a list counts no more.
func (s *source) isStale(now time.Time) bool {
	for _, h := range s.current() {
		if !now.Before(h.until(0)) {
			return true
		}
	}
	return false
}

// racy is how long after a file has changed a second change may be without a trace in its times. A file that was read
// sooner is read once more then.
const racy = 2 * time.Second

// changed reports whether a file has to be read: it is another one, or was written to, or may have been.
func (s *source) changed(info fs.FileInfo, now time.Time) bool {
	old := s.stat
	if old == nil || !os.SameFile(old, info) || old.Size() != info.Size() || !old.ModTime().Equal(info.ModTime()) {
		return true
	}
	return s.statAt.Sub(old.ModTime()).Abs() < racy && now.Sub(old.ModTime()) >= racy
}

// retried is how often a file is read again that has not changed since it was found bad.
const retried = 10 * time.Second

// look looks at a file, and reports whether what is in force has changed.
func (r *Registry) look(s *source, now time.Time) (changed bool, err error) {
	info, err := os.Stat(s.location)
	if err != nil {
		s.stat, s.good = nil, false
		if path := (*fs.PathError)(nil); errors.As(err, &path) {
			err = path.Err
		}
		return false, err
	}
	p := s.problem.Load()
	if !s.changed(info, now) && (p == nil || now.Sub(s.statAt).Abs() < retried) {
		s.seenAgain(now)
		if p != nil {
			return false, p.err
		}
		return false, nil
	}
	if info.Size() > smallBody { // one at a time, for the memory's sake
		r.reading.Lock()
		defer r.reading.Unlock()
		defer runtime.GC() // or the next one would come on top of this one
	}
	s.stat, s.statAt = info, now
	data, err := regularfile.ReadPieces(s.location, maxFile, newStint().rest)
	if err != nil {
		s.stat, s.good = nil, false
		return false, err
	}
	return r.read(s, data, now)
}

// seenAgain tells that all is still as it was at its source, where it was good.
func (s *source) seenAgain(now time.Time) {
	if !s.good {
		return
	}
	for _, h := range s.current() {
		if !h.kept.Load() {
			h.seen.Store(now.UnixNano())
		}
	}
}

// read takes what a source holds now. It uses data up.
func (r *Registry) read(s *source, data []byte, now time.Time) (changed bool, err error) {
	content := contentHash(data)
	if s.good && s.content == content && s.problem.Load() == nil {
		s.seenAgain(now)
		return false, nil
	}
	s.good = false
	lists, err := parseLists(data)
	if err != nil {
		return false, err
	}
	s.content, s.good = content, true
	return r.take(s, lists, now)
}

func contentHash(data []byte) uint64 {
	var h maphash.Hash
	h.SetSeed(seed)
	inPieces(&h, data)
	return h.Sum64()
}

// take puts lists of a source in force, and reports whether that changes anything. A list whose issuer's key is known
// gives way only to a newer one of the same key, so that nobody who can write to the source, or answers in its place,
// takes it away before its time: the error says why one was not taken, and the others are in force.
func (r *Registry) take(s *source, lists []*list, now time.Time) (changed bool, err error) {
	var next []*held
	var errs []error
	fresh := make([]*held, 0, len(lists))
	for _, l := range lists {
		if l.thisUpdate.After(now.Add(skew)) {
			errs = append(errs, fmt.Errorf("the CRL of %s is of the future: thisUpdate is %s",
				l.issuerName(), l.thisUpdate.UTC().Format(time.RFC3339)))
			continue
		}
		h := &held{list: l, at: s.location}
		h.seen.Store(now.UnixNano())
		for _, i := range r.issuersNamed(l.name) {
			if h.signedBy(i) {
				break
			}
		}
		fresh = append(fresh, h)
	}
	for _, old := range s.current() {
		by := old.by.Load()
		stays := by != nil && old.nextEnd().After(now)
		named := false
		for i, h := range fresh {
			if h == nil || !old.sameSeries(h) {
				continue
			}
			switch {
			case old.same(h):
				old.seen.Store(now.UnixNano())
				old.kept.Store(false)
				next = append(next, old)
				fresh[i], stays = nil, false
				named = true
			case by == nil:
			case !by.same(h.by.Load()):
				errs = append(errs, fmt.Errorf("the CRL of %s is not signed by the key of the one before", old.issuerName()))
				named = true
			case h.olderThan(old.list):
				errs = append(errs, fmt.Errorf("the CRL of %s is older than the one in force", old.issuerName()))
				fresh[i], named = nil, true
			default:
				stays, named = false, true
			}
		}
		if stays {
			next = append(next, old)
			old.kept.Store(true)
			if !named {
				errs = append(errs, fmt.Errorf("the CRL of %s is not there any more", old.issuerName()))
			}
		}
	}
	for _, h := range fresh {
		if h != nil {
			next = append(next, h)
			changed = true
		}
	}
	changed = changed || len(next) != len(s.current())
	if changed {
		s.lists.Store(&next)
	}
	return changed, several(errs)
}

// several is the first errors as one.
func several(errs []error) error {
	const told = 3
	if more := len(errs) - told; more > 1 {
		errs = append(errs[:told:told], fmt.Errorf("and %d more are not taken", more))
	}
	switch len(errs) {
	case 0:
		return nil
	case 1:
		return errs[0]
	}
	texts := make([]string, len(errs))
	for i, err := range errs {
		texts[i] = err.Error()
	}
	return errors.New(strings.Join(texts, "; "))
}

// nextEnd is until when a list may stay that is not at its source any more.
func (h *held) nextEnd() time.Time { return h.until(0) }

// sameSeries reports whether one list may follow the other.
func (h *held) sameSeries(o *held) bool {
	return h.name == o.name && (h.base == nil) == (o.base == nil) && string(h.issuer) == string(o.issuer) &&
		string(h.scope) == string(o.scope)
}

// series tells apart lists of a source that may not follow each other.
func (h *held) series() string {
	series := string(h.issuer) + "\x00" + string(h.scope)
	if h.base != nil {
		series += "\x00delta"
	}
	return series
}

// same reports whether two lists are one.
func (h *held) same(o *held) bool {
	return string(h.signed) == string(o.signed) && string(h.signature) == string(o.signature) && h.algorithm == o.algorithm
}

// olderThan reports whether a list was made before another of its series.
func (l *list) olderThan(o *list) bool {
	return l.thisUpdate.Before(o.thisUpdate) || l.number != nil && o.number != nil && l.number.Cmp(o.number) < 0
}

func (l *list) issuerName() string { return printable.Quote(nameOf(l.issuer)) }
