package trial

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"sallyport/bench/load"
	"sallyport/bench/peer"
	"sallyport/bench/pki"
	"sallyport/bench/process"
	"sallyport/bench/redis"
)

// OvershootOptions configure an overshoot. All but Wait, Fault and Unshared are required.
type OvershootOptions struct {
	Nodes    int // gateways
	Limit    peer.Limit
	Duration time.Duration
	Wait     time.Duration // that a call waits for Redis at most; 0: Sallyport's default
	Fault    Fault
	Unshared bool // each gateway counts by itself, which must be found out
}

// A Fault is what happens to Redis in the middle third of an overshoot.
type Fault string

const (
	NoFault Fault = "none"
	Stop    Fault = "stop" // it stops, as by SIGSTOP, and goes on
)

// enough is the share of what the tier allows that is to pass.
const enough = 0.95

// An OvershootResult is what passed under one limit over several gateways.
type OvershootResult struct {
	OvershootOptions
	Took      time.Duration // from the first call to the last answer
	Calls     int           // answered 200 or 429
	Passed    int           // of these, 200
	Answered  int           // calls that the backend answered
	Worst     Window
	Uncounted int // decisions without Redis
	TimedOut  int // calls that Redis did not answer in time
	Errors    load.Errors
}

// Allowed returns what the tier allows in the time that the calls took.
func (r OvershootResult) Allowed() float64 {
	return float64(r.Limit.Burst) + r.Limit.Rate()*r.Took.Seconds()
}

// Share returns how much of Allowed passed.
func (r OvershootResult) Share() float64 { return float64(r.Passed) / r.Allowed() }

// Beyond returns how many calls more than the tier's bucket may pass in a window: without Redis, gateways may let one
// burst pass that was spent already.
func (r OvershootResult) Beyond() int {
	if r.Fault == Stop {
		return r.Limit.Burst
	}
	return 0
}

// Verdict returns what is wrong with the result, or nil.
func (r OvershootResult) Verdict() error {
	var list []error
	wrong := func(format string, args ...any) { list = append(list, fmt.Errorf(format, args...)) }
	if len(r.Errors) > 0 {
		wrong("%d calls failed: %v", r.Errors.Total(), r.Errors)
	}
	if r.Answered != r.Passed {
		wrong("%d calls passed, but the backend answered %d", r.Passed, r.Answered)
	}
	if over := r.Worst.Over() - float64(r.Beyond()); over > 1e-6 {
		wrong("overshoot: %d calls passed in %.3f s, %.1f more than allowed",
			r.Worst.Passed, r.Worst.Length.Seconds(), over)
	}
	if r.Fault != Stop && r.Share() < enough {
		wrong("%.1f%% of what the tier allows passed, and %.0f%% is wanted", 100*r.Share(), 100*enough)
	}
	return errors.Join(list...)
}

// Overshoot calls several gateways with one certificate, as fast as they answer, and finds out how many calls the limit
// that they share let pass.
func Overshoot(ctx context.Context, s Setup, p peer.Program, o OvershootOptions) (OvershootResult, error) {
	f := &fleet{Setup: s, OvershootOptions: o}
	r := OvershootResult{OvershootOptions: o}
	err := f.open(ctx, p)
	if err == nil {
		err = f.drive(ctx, &r)
	}
	err = errors.Join(err, f.close())
	if err == nil {
		r.Answered, err = f.answered()
	}
	return r, err
}

// A fleet is several gateways that count one limit in one Redis, in front of one backend.
type fleet struct {
	Setup
	OvershootOptions
	pki      *pki.Set
	backend  *process.Process
	said     bytes.Buffer  // by the backend; complete once it is closed
	redis    *redis.Server // nil if Unshared
	gateways []*peer.Gateway
}

// open starts all of it; close must be called even after an error.
func (f *fleet) open(ctx context.Context, p peer.Program) (err error) {
	f.Progress.Pass("starting %d gateways", f.Nodes)
	if f.pki, err = pki.Make(f.Folder, 1); err != nil {
		return err
	}
	addresses, err := peer.Addresses(1 + 3*f.Nodes)
	if err != nil {
		return err
	}
	args := append(f.Backend[1:], "--address", addresses[0])
	options := process.Options{Cores: f.LoadCores, Output: &f.said}
	if f.backend, err = process.Start(options, f.Backend[0], args...); err != nil {
		return err
	}
	counted := peer.Redis{Wait: f.Wait}
	if !f.Unshared {
		if f.redis, err = redis.Start(ctx, f.Folder, f.LoadCores); err != nil {
			return err
		}
		counted.Address = f.redis.Address
	}
	for i := range f.Nodes {
		own := addresses[1+3*i:]
		site := peer.Site{
			Folder:  filepath.Join(f.Folder, fmt.Sprintf("%s-%d", p.Name, i+1)),
			PKI:     f.pki,
			Backend: addresses[0],
			HTTPS:   own[0],
			HTTP:    own[1],
			Status:  own[2],
			Workers: max(1, f.Workers),
			Limit:   f.Limit,
			Redis:   counted,
		}
		if err := p.Configure(site); err != nil {
			return err
		}
		g, err := p.Start(ctx, site, f.GatewayCores)
		if err != nil {
			return err
		}
		f.gateways = append(f.gateways, g)
	}
	return f.meet(ctx)
}

// meeting is how long gateways may take to know of each other.
const meeting = 2 * time.Minute

// meet waits until all gateways know of each other.
func (f *fleet) meet(ctx context.Context) error {
	if f.Unshared {
		return nil
	}
	for _, g := range f.gateways {
		if err := await(ctx, "the gateways share their limits", meeting, func() (bool, error) {
			v, err := g.Metrics(ctx, "sallyport_limits_shared", "sallyport_limits_nodes")
			return err == nil && v[0] == 1 && v[1] == float64(f.Nodes), err
		}); err != nil {
			return err
		}
	}
	return nil
}

// close ends what open has started. The backend is last, so that it has said how many calls it answered.
func (f *fleet) close() error {
	var list []error
	for _, g := range f.gateways {
		list = append(list, g.Stop())
	}
	if f.redis != nil {
		list = append(list, f.redis.Stop())
	}
	if f.backend != nil {
		list = append(list, f.backend.Stop())
	}
	return errors.Join(list...)
}

// answered returns how many calls the backend says it has answered.
func (f *fleet) answered() (n int, err error) {
	_, last, _ := bytes.Cut(f.said.Bytes(), []byte("\n")) // the first line is its address
	if _, err := fmt.Sscanf(string(last), "answered %d calls", &n); err != nil {
		return 0, fmt.Errorf("the backend does not say how many calls it answered: %q", f.said.Bytes())
	}
	return n, nil
}

// drive calls all gateways at once and fills in the result.
func (f *fleet) drive(ctx context.Context, r *OvershootResult) error {
	began := time.Now()
	rec := &record{began: began, first: math.MaxInt64}
	results := make([]*load.Result, len(f.gateways))
	list := make([]error, len(f.gateways)+1)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var group sync.WaitGroup
	for i, g := range f.gateways {
		c := calls(f.pki, g)
		c.Want.Also, c.Connections, c.Duration, c.Answered = 429, connectionsEach, f.Duration, rec.take
		if i == 0 {
			c.Progress = func(p load.Progress) {
				f.Progress.Pass("%s: %s  %v left", rec, p.Phase, p.Left.Round(time.Second))
			}
		}
		group.Go(func() {
			if results[i], list[i] = load.Run(ctx, c); list[i] != nil {
				cancel()
			}
		})
	}
	if f.Fault == Stop {
		group.Go(func() { list[len(list)-1] = f.stopRedis(ctx) })
	}
	group.Wait()
	r.Took, r.Calls, r.Passed = rec.last-rec.first, rec.calls, len(rec.passes)
	r.Worst = worstWindow(rec.passes, float64(f.Limit.Burst), f.Limit.Rate())
	for _, result := range results {
		if result != nil {
			r.Errors = r.Errors.And(result.Errors)
		}
	}
	if err := errors.Join(list...); err != nil {
		return err
	}
	for _, g := range f.gateways {
		v, err := g.Metrics(ctx, "sallyport_limits_uncounted_total", "sallyport_limits_timeouts_total")
		if err != nil {
			return err
		}
		r.Uncounted, r.TimedOut = r.Uncounted+int(v[0]), r.TimedOut+int(v[1])
	}
	return nil
}

// connectionsEach is how many connections call each gateway.
const connectionsEach = 8

// stopRedis stops Redis for the middle third of the time.
func (f *fleet) stopRedis(ctx context.Context) error {
	if !pause(ctx, f.Duration/3) {
		return nil
	}
	err := f.redis.Signal(syscall.SIGSTOP)
	pause(ctx, f.Duration/3)
	return errors.Join(err, f.redis.Signal(syscall.SIGCONT))
}

// A record collects the answers of all gateways. Its times count from began.
type record struct {
	began time.Time

	mu          sync.Mutex
	calls       int
	passes      []pass
	first, last time.Duration // call sent, answer arrived
}

func (r *record) take(c load.Call) {
	p := pass{c.Sent.Sub(r.began), c.Got.Sub(r.began)}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls++
	r.first, r.last = min(r.first, p.sent), max(r.last, p.got)
	if c.Status == 200 {
		r.passes = append(r.passes, p)
	}
}

// String is the state so far.
func (r *record) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return fmt.Sprintf("%d of %d calls passed", len(r.passes), r.calls)
}
