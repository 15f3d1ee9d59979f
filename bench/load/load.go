// Package load makes HTTP calls at a steady load, checks every answer, and times them.
package load

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math"
	"net"
	"net/url"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/bench/histogram"
)

// A Workload is what happens between two calls of one connection.
type Workload string

const (
	Keepalive Workload = "keepalive" // nothing: the connection stays
	NewConn   Workload = "newconn"   // it is closed, and the next call makes a full handshake
	Resumed   Workload = "resumed"   // it is closed, and the next call resumes its TLS session
	// Mixed, of ten calls: seven on a kept connection, two more on it with one of Headers, one on a connection of its own.
	Mixed Workload = "mixed"
)

// A Header is a field that is sent beside the fixed ones.
type Header struct{ Name, Value string }

// A Want is what every answer must be. The zero Want takes any 2xx.
type Want struct {
	Status int    // 0: 200 to 299
	Body   []byte // nil: any
}

// A Config says what to load and how. URL and Duration are needed.
type Config struct {
	URL         string            // http or https
	Address     string            // host:port to connect to; empty: that of URL
	Workload    Workload          // empty: Keepalive
	HTTP2       bool              // HTTP/2 over TLS, Keepalive only, instead of HTTP/1.1
	Connections int               // 0: 1
	Streams     int               // calls at once on a connection of HTTP/2; 0: 1
	Rate        float64           // calls a second, begun when due whatever the earlier ones do; 0: each after the last (closed loop)
	Warmup      time.Duration     // before the first call that counts
	Duration    time.Duration     // in which calls that count begin
	Timeout     time.Duration     // of a call, a connect, and of what is still due at the end; 0: 10 s
	TLS         *tls.Config       // without Certificates; nil: Go's defaults
	Identities  []tls.Certificate // client certificates, one a connection, in turn; nil: none
	Headers     []Header          // one a call, in turn; nil: none
	Want        Want

	Progress func(Progress) // called about once a second; nil: nobody
	Warming  func()         // called when the connections are made and the warm-up begins; nil: nobody
	Began    func()         // called when the calls that count begin; nil: nobody
	Ended    func()         // called when they have begun; nil: nobody
}

// A Progress is how far a Run is. Rates are of the time since the last one.
type Progress struct {
	Phase  string // connecting, warming up, measuring, finishing
	Left   time.Duration
	PerSec float64
	Calls  uint64 // in all, warm-up included
	Errors uint64
}

// A Result is what came of the calls that counted, and every error, of the warm-up's, too.
type Result struct {
	Elapsed time.Duration
	Calls   uint64 // good ones
	Bytes   uint64 // of bodies, with the warm-up's
	Latency *histogram.Histogram
	Errors  Errors
}

// PerSecond is the rate of good calls.
func (r *Result) PerSecond() float64 { return float64(r.Calls) / r.Elapsed.Seconds() }

// ErrConfig is in the chain of what is wrong with a Config.
var ErrConfig = errors.New("load")

func (c *Config) complete() (*url.URL, error) {
	u, err := url.Parse(c.URL)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	c.Connections, c.Streams = max(1, c.Connections), max(1, c.Streams)
	if c.Workload == "" {
		c.Workload = Keepalive
	}
	if c.Timeout <= 0 {
		c.Timeout = 10 * time.Second
	}
	if c.Address == "" {
		c.Address = u.Host
		if u.Port() == "" {
			c.Address = net.JoinHostPort(u.Hostname(), map[string]string{"http": "80", "https": "443"}[u.Scheme])
		}
	}
	switch {
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return nil, fmt.Errorf("%w: %q is no http or https URL", ErrConfig, c.URL)
	case c.Workload != Keepalive && c.Workload != NewConn && c.Workload != Resumed && c.Workload != Mixed:
		return nil, fmt.Errorf("%w: no workload %q: there are keepalive, newconn, resumed and mixed", ErrConfig, c.Workload)
	case c.Workload == Resumed && u.Scheme != "https":
		return nil, fmt.Errorf("%w: only https can be resumed", ErrConfig)
	case c.HTTP2 && (u.Scheme != "https" || c.Workload != Keepalive):
		return nil, fmt.Errorf("%w: HTTP/2 is made for https and kept connections only", ErrConfig)
	case c.Streams > 1 && !c.HTTP2:
		return nil, fmt.Errorf("%w: streams are a matter of HTTP/2", ErrConfig)
	case c.Rate < 0 || math.IsInf(c.Rate, 0) || math.IsNaN(c.Rate):
		return nil, fmt.Errorf("%w: a rate of %g", ErrConfig, c.Rate)
	case c.Duration <= 0:
		return nil, fmt.Errorf("%w: a duration of %v", ErrConfig, c.Duration)
	}
	return u, nil
}

// Probe makes one call as Run would and returns the answer, whatever it is.
func Probe(ctx context.Context, c Config) (status int, body []byte, err error) {
	u, err := c.complete()
	if err != nil {
		return 0, nil, err
	}
	t := newTarget(u, &c)
	caller := t.callers(1)[0]
	defer caller.close()
	release := context.AfterFunc(ctx, caller.abort)
	defer release()
	a := answer{keep: true}
	err = caller.call(0, &a)
	if f := (*Failure)(nil); errors.As(err, &f) && f.Kind == notResumed {
		err = nil // the first one can't be
	}
	return a.status, a.body, err
}

// Run loads until the time is over or ctx ends; then it returns what there is so far, with ctx's error. Errors of calls
// are part of the result, not the error.
func Run(ctx context.Context, c Config) (*Result, error) {
	u, err := c.complete()
	if err != nil {
		return nil, err
	}
	r := &run{Config: &c, started: time.Now()}
	r.begin.Store(math.MaxInt64)
	r.end.Store(math.MaxInt64)
	r.shards = make([]shard, min(runtime.GOMAXPROCS(0), 16))
	for i := range r.shards {
		r.shards[i].latency = histogram.New()
	}
	return r.run(ctx, newTarget(u, &c))
}

// A run is one Run under way. Its times count from started.
type run struct {
	*Config
	started    time.Time
	begin, end atomic.Int64 // when the calls that count begin; far away until it is known
	phase      atomic.Pointer[string]
	shards     []shard // spread what all workers write
	errors     errorList
}

type shard struct {
	latency      *histogram.Histogram
	calls, bytes atomic.Uint64
	_            [64]byte // its own cache line
}

func (r *run) now() time.Duration { return time.Since(r.started) }

func (r *run) enter(phase string) { r.phase.Store(&phase) }

func (r *run) run(ctx context.Context, t *target) (*Result, error) {
	r.enter("connecting")
	quiet, stopProgress := context.WithCancel(context.Background())
	var side sync.WaitGroup
	side.Go(func() { r.report(quiet) })
	defer func() { stopProgress(); side.Wait() }()

	callers := t.callers(r.Connections * r.Streams)
	release := context.AfterFunc(ctx, func() {
		for _, c := range callers {
			c.abort()
		}
	})
	defer release()
	r.connect(ctx, callers)

	workers, stopWorkers := context.WithCancel(ctx)
	defer stopWorkers()
	var due chan time.Duration
	if r.Rate > 0 {
		due = make(chan time.Duration)
	}
	var group sync.WaitGroup
	first := r.now()
	if due != nil {
		// By when they were due, not by when somebody looked at the clock.
		r.begin.Store(int64(first + r.Warmup))
		r.end.Store(int64(first + r.Warmup + r.Duration))
		group.Go(func() { r.pace(workers, due, first) })
	}
	for i, c := range callers {
		w := &worker{run: r, caller: c, shard: &r.shards[i%len(r.shards)], turn: i}
		if due != nil {
			group.Go(func() { w.open(due) })
		} else {
			group.Go(func() { w.closed(workers) })
		}
	}

	r.enter("warming up")
	call(r.Warming)
	sleep(ctx, first+r.Warmup-r.now())
	r.enter("measuring")
	begin := r.now()
	call(r.Began)
	r.begin.CompareAndSwap(math.MaxInt64, int64(begin))
	sleep(ctx, first+r.Warmup+r.Duration-r.now())
	end := r.now()
	r.end.CompareAndSwap(math.MaxInt64, int64(end))
	call(r.Ended)
	r.enter("finishing")
	if due == nil {
		stopWorkers()
	}
	group.Wait()
	for _, c := range callers {
		c.close()
	}

	result := &Result{Elapsed: end - begin, Latency: histogram.New(), Errors: r.errors.all()}
	for i := range r.shards {
		result.Latency.Add(r.shards[i].latency)
		result.Bytes += r.shards[i].bytes.Load()
	}
	result.Calls = result.Latency.Count()
	return result, ctx.Err()
}

func call(f func()) {
	if f != nil {
		f()
	}
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// connect makes the connections that stay, or the sessions that are resumed, before anything is timed. What fails is
// an error, and tried again by the first call.
func (r *run) connect(ctx context.Context, callers []caller) {
	var group sync.WaitGroup
	next := make(chan caller)
	for range min(64, len(callers)) {
		group.Go(func() {
			for c := range next {
				if err := c.connect(); err != nil && ctx.Err() == nil {
					r.errors.add(err)
				}
			}
		})
	}
	for _, c := range callers {
		if ctx.Err() != nil {
			break
		}
		next <- c
	}
	close(next)
	group.Wait()
}

// report tells Progress about once a second.
func (r *run) report(ctx context.Context) {
	if r.Progress == nil {
		return
	}
	ticks := time.NewTicker(time.Second)
	defer ticks.Stop()
	var last uint64
	var at time.Duration
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticks.C:
		}
		p := Progress{Phase: *r.phase.Load(), Errors: r.errors.count.Load()}
		for i := range r.shards {
			p.Calls += r.shards[i].calls.Load()
		}
		now := r.now()
		p.PerSec = float64(p.Calls-last) / (now - at).Seconds()
		last, at = p.Calls, now
		if begin := r.begin.Load(); begin != math.MaxInt64 {
			p.Left = max(0, time.Duration(begin)+r.Duration-now)
		}
		r.Progress(p)
	}
}
