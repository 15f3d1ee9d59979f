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

// workers runs jobs, a bounded number at once, in all and for each host, so that a host that does not answer holds up
// nobody who asks another. What comes before run waits for it.
type workers struct {
	faults  *contain.Faults
	most    int // at once
	perHost int

	mu      sync.Mutex
	ctx     context.Context // of run; nil: it does not run
	over    bool
	group   sync.WaitGroup
	lanes   map[string]*lane
	turns   []string // hosts with a job that may run
	running int
	waiting int
}

// A lane is the jobs of a host.
type lane struct {
	running int
	jobs    []func(context.Context)
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
	w.turns = append(w.turns, host)
	w.start()
	return true
}

// start starts what may run. A host whose jobs may not run yet has its turn when one of them ends.
func (w *workers) start() {
	for w.ctx != nil && !w.over && w.running < w.most && len(w.turns) > 0 {
		host := w.turns[0]
		w.turns = w.turns[1:]
		l := w.lanes[host]
		if l == nil || len(l.jobs) == 0 || l.running >= w.perHost {
			continue
		}
		job := l.jobs[0]
		l.jobs = l.jobs[1:]
		l.running++
		w.running++
		w.waiting--
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
	l.running--
	switch {
	case len(l.jobs) > 0:
		w.turns = append(w.turns, host)
	case l.running == 0:
		delete(w.lanes, host)
	}
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
		w.lanes, w.turns, w.waiting = nil, nil, 0
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
