package control

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/listenerprofiles/acme"
)

// Whatever reloads there are, and whether they come into force or not, there is one Manager at most.
func TestManagersDoNotGather(t *testing.T) {
	folder := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		b := startBed(t, func(_ *bed, cfg *Options) { cfg.settle = 0 })
		refuse := func(err error) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.fails = err
		}
		for i := range 6 {
			refuse(nil)
			if i%2 == 1 {
				refuse(errors.New("the port is taken"))
			}
			b.change(func(s *Spec) {
				s.ACME.Value = acme.Settings{Directory: fmt.Sprintf("https://ca.test/%d", i), Folder: folder, HTTP: true}
			})
			time.Sleep(11 * time.Second)
			synctest.Wait()
			if len(b.issuers) != 1 {
				t.Errorf("after %d reloads: %d Managers", i+1, len(b.issuers))
			}
			if got := b.InForce().issuer.Settings().Directory; got != fmt.Sprintf("https://ca.test/%d", i-i%2) {
				t.Errorf("after %d reloads: %s", i+1, got)
			}
		}
		refuse(nil)
		b.change(func(s *Spec) { s.ACME = Placed[acme.Settings]{} })
		time.Sleep(11 * time.Second)
		synctest.Wait()
		if len(b.issuers) != 0 {
			t.Errorf("without a CA: %d Managers", len(b.issuers))
		}
	})
}
