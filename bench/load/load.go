// Package load makes HTTP calls at a steady load, checks every answer, and times it.
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

// A Workload says what happens to a connection between two calls.
type Workload string

const (
	Keepalive Workload = "keepalive" // the connection stays open
	NewConn   Workload = "newconn"   // each call opens one, with a full handshake
	Resumed   Workload = "resumed"   // each call opens one that resumes a TLS session
	// Mixed makes ten calls in turn: seven on a kept connection, two more on it with one of Headers, one on a
	// connection of its own.
	Mixed Workload = "mixed"
)

// A Header is sent in addition to the fixed header fields.
type Header struct{ Name, Value string }

// A Want is the answer that every call must get. The zero Want accepts any 2xx.
type Want struct {
	Status int    // 0: 200 to 299
	Body   []byte // nil: any
	Also   int    // another status that is as good, with any body; 0: none
}

// A Call is one that was answered as wanted.
type Call struct {
	Status int
	Sent   time.Time // before it was sent; paced calls: when it was due
	Got    time.Time // after its answer arrived
}

// A Config describes a load. URL and Duration are required.
type Config struct {
	URL         string            // http or https
	Address     string            // host:port to connect to; empty: that of URL
	Workload    Workload          // empty: Keepalive
	HTTP2       bool              // HTTP/2 over TLS, Keepalive only, instead of HTTP/1.1
	Connections int               // 0: 1
	Streams     int               // calls at once on a connection of HTTP/2; 0: 1
	Rate        float64           // calls a second, whatever the earlier ones do; 0: each after the last (closed loop)
	Warmup      time.Duration     // before calls are counted
	Duration    time.Duration     // a call counts if it begins in this time
	Timeout     time.Duration     // of a call, a connect, and the calls still due at the end; 0: 10 s
	TLS         *tls.Config       // without Certificates; nil: Go's defaults
	Identities  []tls.Certificate // client certificates, a connection each, in turn; nil: none
	Headers     []Header          // one a call, in turn; nil: none
	Want        Want

	// Hooks, each of which may be nil.
	Progress func(Progress) // called about once a second
	Warming  func()         // called when the connections are open and the warm-up begins
	Began    func()         // called when the counted time begins
	Ended    func()         // called when it ends
	Answered func(Call)     // called concurrently, for each call that was answered as wanted, warm-up included
}

// A Progress is the state of a Run. PerSec covers the time since the previous Progress.
type Progress struct {
	Phase  string // connecting, warming up, measuring, finishing
	Left   time.Duration
	PerSec float64
	Calls  uint64 // in all, warm-up included
	Errors uint64
}

// A Result is the outcome of the counted calls, with the errors of all calls, warm-up included.
type Result struct {
	Elapsed time.Duration
	Calls   uint64 // successful
	Bytes   uint64 // of bodies, warm-up included
	Latency *histogram.Histogram
	Errors  Errors
}

// PerSecond returns the rate of successful calls.
func (r *Result) PerSecond() float64 { return float64(r.Calls) / r.Elapsed.Seconds() }

// ErrConfig is wrapped by the errors about a Config.
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
		return nil, fmt.Errorf("%w: no workload %q: there are keepalive, newconn, resumed and mixed",
			ErrConfig, c.Workload)
	case c.Workload == Resumed && u.Scheme != "https":
		return nil, fmt.Errorf("%w: only https can resume sessions", ErrConfig)
	case c.HTTP2 && (u.Scheme != "https" || c.Workload != Keepalive):
		return nil, fmt.Errorf("%w: HTTP/2 needs https and kept connections", ErrConfig)
	case c.Streams > 1 && !c.HTTP2:
		return nil, fmt.Errorf("%w: more than one stream needs HTTP/2", ErrConfig)
	case c.Rate < 0 || math.IsInf(c.Rate, 0) || math.IsNaN(c.Rate):
		return nil, fmt.Errorf("%w: a rate of %g", ErrConfig, c.Rate)
	case c.Duration <= 0:
		return nil, fmt.Errorf("%w: a duration of %v", ErrConfig, c.Duration)
	}
	return u, nil
}

// Probe makes one call as Run would, and returns the answer whatever it is.
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
		err = nil // the first call has no session to resume
	}
	return a.status, a.body, err
}

// Run makes calls until the time is over or ctx ends; then it returns the result so far, with ctx's error. Failed calls
// are part of the result and do not make an error.
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

// A run is a Run in progress. Its times count from started.
type run struct {
	*Config
	started    time.Time
	begin, end atomic.Int64 // of the counted time; MaxInt64 until known
	phase      atomic.Pointer[string]
	shards     []shard // the workers' counters, to spread contention
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
		// Paced calls count by when they are due, whenever this goroutine gets to run.
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

// connect opens the kept connections, and the sessions to resume, before anything is timed. A failure counts as an
// error, and the first call tries again.
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

// report calls Progress about once a second.
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
