package revocation

import (
	"context"
	"sync"

	"sallyport/internal/contain"
)

// Bounds of jobs that wait, in all and for each host.
const (
	maxWaiting        = 20_000
	maxWaitingPerHost = 10_000
)

// workers runs jobs, a bounded number at once, in all and for each host, so that hosts that do not answer hold up nobody who
// asks another: half of the workers are for hosts of which no job runs yet. Hosts have their turns one after the other,
// however many jobs of each wait. What comes before run waits for it.
type workers struct {
	faults  *contain.Faults
	most    int // at once
	perHost int // likewise; of these all but the first share half of most

	mu      sync.Mutex
	ctx     context.Context // of run; nil: it does not run
	over    bool
	group   sync.WaitGroup
	lanes   map[string]*lane
	turns   []string // hosts with a job that may run, each once
	held    []string // those of which a job runs, and that wait for the half which all share
	running int
	further int // of these, beside the first of each host
	waiting int
}

// A lane is the jobs of a host.
type lane struct {
	running int
	jobs    []func(context.Context)
	queued  bool // it is in turns, or held
}

// do has a worker run a job, which contains its own panics. It reports whether there was room for it.
func (w *workers) do(host string, job func(context.Context)) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	l := w.lanes[host]
	if w.waiting >= maxWaiting || l != nil && len(l.jobs) >= maxWaitingPerHost || w.over {
		return false
	}
	if l == nil {
		l = &lane{}
		if w.lanes == nil {
			w.lanes = map[string]*lane{}
		}
		w.lanes[host] = l
	}
	l.jobs = append(l.jobs, job)
	w.waiting++
	w.queue(host, l)
	w.start()
	return true
}

// queue gives a host its turn, if it may run a job more.
func (w *workers) queue(host string, l *lane) {
	if !l.queued && len(l.jobs) > 0 && l.running < w.perHost {
		l.queued = true
		w.turns = append(w.turns, host)
	}
}

// start starts what may run.
func (w *workers) start() {
	for w.ctx != nil && !w.over && w.running < w.most && len(w.turns) > 0 {
		host := w.turns[0]
		w.turns = w.turns[1:]
		l := w.lanes[host]
		if l.running > 0 {
			if w.further >= w.most/2 {
				w.held = append(w.held, host)
				continue
			}
			w.further++
		}
		l.queued = false
		job := l.jobs[0]
		l.jobs = l.jobs[1:]
		l.running++
		w.running++
		w.waiting--
		w.queue(host, l)
		ctx := w.ctx
		w.group.Go(func() {
			defer w.faults.Catch("a look-up of a revocation", nil)
			defer w.ended(host, l)
			job(ctx)
		})
	}
}

func (w *workers) ended(host string, l *lane) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.running--
	if l.running--; l.running > 0 {
		w.further--
	}
	if w.queue(host, l); l.running == 0 && len(l.jobs) == 0 {
		delete(w.lanes, host)
	}
	w.turns, w.held = append(w.turns, w.held...), nil // one of them may run now
	w.start()
}

// run lets jobs run until ctx ends. wait waits for them, then; those that had no turn get a ctx that has ended.
func (w *workers) run(ctx context.Context) (wait func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ctx = ctx
	w.start()
	return func() {
		w.mu.Lock()
		w.over = true
		w.mu.Unlock()
		w.group.Wait()
		w.mu.Lock()
		lanes := w.lanes
		w.lanes, w.turns, w.held, w.waiting = nil, nil, nil, 0
		w.mu.Unlock()
		for _, l := range lanes {
			for _, job := range l.jobs {
				job(ctx)
			}
		}
	}
}

// runs reports whether jobs run now.
func (w *workers) runs() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.ctx != nil && !w.over
}
