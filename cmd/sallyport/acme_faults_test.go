package main_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/internal/testacme"
	"sallyport/internal/testserver"
)

// TestACMEAuthorityAway kills the CA for the whole time in which a certificate is to be renewed, and longer: the old one
// serves until its end and after it, the log tells, and the CA, which comes back without a memory, issues again.
func TestACMEAuthorityAway(t *testing.T) {
	t.Parallel()
	at := newFront(t)
	options := at.options()
	options.Validity = 15 * time.Second
	ca := testacme.Start(t, options)
	d := acmeDemo(t, ca, acmeSettings{names: "a.test"})
	at.to(d)
	p, _ := d.serve(new(counter))
	d.waitShows("a.test", "ecdsa", ca, nil)
	load := callAll(t, []*demoFolder{d}, []string{"a.test"}, []string{"ecdsa"}, nil, &sightings{serials: map[string]bool{}})

	ca.Process.Kill()
	const trouble = `msg="a server certificate could not be had from the CA" name=a.test`
	testserver.Eventually(t, "a warning", func() error {
		if !p.warned("level=WARN", trouble, "serves_until=", "next_try_in=") {
			return errors.New("none")
		}
		return nil
	})
	last, err := d.certificateFor("a.test", "ecdsa", nil)
	if err != nil {
		t.Fatal(err)
	}
	testserver.Eventually(t, "an error, since it has ended", func() error {
		if !p.warned("level=ERROR", trouble) {
			return errors.New("none")
		}
		return nil
	})
	if now, err := d.certificateFor("a.test", "ecdsa", nil); err != nil || !now.Equal(last) || time.Now().Before(last.NotAfter) {
		t.Errorf("after its end: %v", err)
	}
	if status, text := p.status("/readyz"); status != 200 || !strings.HasPrefix(text, "ready\n") {
		t.Errorf("/readyz: %d %s", status, text)
	}
	if end := p.total("sallyport_server_certificate_expiry_timestamp_seconds", `listener="https"`); int64(end) != last.NotAfter.Unix() {
		t.Errorf("the metric has %v, not %d", end, last.NotAfter.Unix())
	}

	ca.Restart()
	d.waitShows("a.test", "ecdsa", ca, last)
	if ca.Accounts() != 2 || !p.warned("level=WARN", "the CA doesn't know the account any more") {
		t.Errorf("%d accounts", ca.Accounts())
	}
	load.stop()
	p.stopClean()
}

// TestACMEKilled kills the gateway in the middle of each step of an order, and starts it again with one name more. Each
// start goes on where the one before was killed, and serves at once what that had; no certificate is issued twice. With
// SALLYPORT_CHAOS=full it kills 50 times.
func TestACMEKilled(t *testing.T) {
	t.Parallel()
	at := newFront(t)
	ca := testacme.Start(t, at.options())
	d := acmeDemo(t, ca, acmeSettings{names: "n0.test"})
	at.to(d)
	d.serveBackend(new(counter))
	steps := []string{
		"accounts/*", "pending/*/NAME.key", "pending/*/NAME.order", "challenges/*", "certificates/*/NAME/NAME.key",
		"certificates/*/NAME/NAME.crt", "certificates/*/NAME/NAME.json", "served/*/NAME.pem",
	}
	there := func(pattern, name string) bool {
		found, err := filepath.Glob(d.path("acme/" + strings.ReplaceAll(pattern, "NAME", name)))
		if strings.HasPrefix(pattern, "challenges/") { // other kills may have left some of other names
			found = slices.DeleteFunc(found, func(file string) bool {
				data, err := os.ReadFile(file)
				return err != nil || !strings.Contains(string(data), name)
			})
		}
		return err == nil && len(found) > 0
	}
	roots := ca.Trust()
	const served = "served/*/NAME.pem"
	var names, had []string
	kills := scaled(len(steps), 50)
	for i := range kills + 1 {
		names = append(names, fmt.Sprintf("n%d.test", i))
		d.swap("sallyport.yaml", d.acmeConfig(ca, acmeSettings{names: strings.Join(names, ", ")}))
		p := d.serveAlone()
		for _, name := range had {
			if _, err := d.certificateFor(name, "ecdsa", roots); err != nil {
				t.Errorf("kill %d: %s is not served at once: %v", i, name, err)
			}
		}
		if i == kills {
			for _, name := range names {
				d.waitShows(name, "ecdsa", ca, nil)
			}
			p.stopClean()
			break
		}
		step := steps[i%len(steps)]
		for began := time.Now(); !there(step, names[i]) && !there(served, names[i]); time.Sleep(time.Millisecond) {
			if time.Since(began) > patience {
				t.Fatalf("%s is not reached", step)
			}
		}
		time.Sleep(rand.N(20 * time.Millisecond))
		p.cmd.Process.Kill()
		<-p.ended
		had = nil
		for _, name := range names[max(0, i-5):] {
			if there(served, name) {
				had = append(had, name)
			}
		}
	}
	output, err := os.ReadFile(filepath.Join(ca.Process.Dir, "output"))
	if err != nil {
		t.Fatal(err)
	}
	// An order's URL is lost if the kill falls between the CA's answer and its writing; an order is of no use if the CA
	// could not validate because of the kill.
	invalid := len(regexp.MustCompile(`set INVALID`).FindAll(output, -1))
	more := ca.Orders() - len(names)
	t.Logf("%d kills, %d names, %d orders more than names, %d validations failed", kills, len(names), more, invalid)
	if ca.Issued() != len(names) || ca.Accounts() != 1 || more > kills {
		t.Errorf("%d certificates for %d names, %d accounts, %d orders too many", ca.Issued(), len(names), ca.Accounts(), more)
	}
	d.noneLeft(t, kills)
}

// noneLeft fails if an order is left, or a key whose certificate isn't kept, if the kills have left more than an answer
// each, or if others can read what is kept.
func (d *demoFolder) noneLeft(t *testing.T, kills int) {
	t.Helper()
	answers := 0
	err := filepath.WalkDir(d.path("acme"), func(path string, entry os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v", path, info.Mode())
		}
		kept, err := filepath.Rel(d.Dir, path)
		if err != nil || entry.IsDir() {
			return err
		}
		switch {
		case strings.HasPrefix(kept, "acme/challenges/"):
			answers++
		case strings.HasPrefix(kept, "acme/pending/"):
			if strings.HasSuffix(path, ".order") { // its key is looked at, which goes after it
				return nil
			}
			name := strings.TrimSuffix(filepath.Base(path), ".key")
			stored := d.read("acme/certificates/" + filepath.Base(filepath.Dir(path)) + "/" + name + "/" + name + ".key")
			var pending string
			if err := json.Unmarshal([]byte(d.read(kept)), &pending); err != nil || pending != stored {
				t.Errorf("%s is left, and not stored: %v", kept, err)
			}
		}
		return nil
	})
	if err != nil || answers > kills {
		t.Errorf("%d answers to validations are left, %v", answers, err)
	}
	t.Logf("%d answers to validations are left", answers)
}
