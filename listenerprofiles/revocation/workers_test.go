package revocation

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/internal/contain"
	"sallyport/internal/testserver"
)

// TestWorkersAreLeftForOtherHosts: hosts of which no job ends take half of the workers, and one each of the other half; a
// host beside them goes on, and has all that one may have once the others' jobs end. No job is lost.
func TestWorkersAreLeftForOtherHosts(t *testing.T) {
	const most, perHost, silent, each = 64, 8, 31, 20
	w := &workers{faults: &contain.Faults{}, most: most, perHost: perHost}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	wait := w.run(ctx)
	release := make(chan struct{})
	var running, worst, done atomic.Int64
	hold := func(context.Context) {
		if n := running.Add(1); n > worst.Load() {
			worst.Store(n)
		}
		<-release
		running.Add(-1)
		done.Add(1)
	}
	for range each {
		for host := range silent {
			if !w.do(fmt.Sprint("silent ", host), hold) {
				t.Fatal("there is no room")
			}
		}
	}
	testserver.Eventually(t, "jobs of all silent hosts", func() error {
		if n := running.Load(); n != most/2+silent {
			return fmt.Errorf("%d run", n)
		}
		return nil
	})
	var ended sync.WaitGroup
	for range each {
		ended.Add(1)
		w.do("live", func(context.Context) { ended.Done() })
	}
	all := make(chan struct{})
	go func() { ended.Wait(); close(all) }()
	select {
	case <-all:
	case <-time.After(20 * time.Second):
		t.Fatal("jobs of another host don't run")
	}
	if n := running.Load(); n != most/2+silent {
		t.Errorf("%d run beside it", n)
	}

	// Of one host as many run as it may have, when there is nobody else.
	close(release)
	testserver.Eventually(t, "the silent hosts' jobs", func() error {
		if n := done.Load(); n != silent*each {
			return fmt.Errorf("%d of %d ended", n, silent*each)
		}
		return nil
	})
	var together atomic.Int64
	again := make(chan struct{})
	for range each {
		w.do("live", func(context.Context) { together.Add(1); <-again })
	}
	testserver.Eventually(t, "as many of one host as it may have", func() error {
		if n := together.Load(); n != perHost {
			return fmt.Errorf("%d run", n)
		}
		return nil
	})
	close(again)
	cancel()
	wait()
	if n := together.Load(); n != each {
		t.Errorf("%d of %d jobs ended", n, each)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.running != 0 || w.further != 0 || worst.Load() > most {
		t.Errorf("%d run, %d of them further ones; %d ran at most", w.running, w.further, worst.Load())
	}
}
