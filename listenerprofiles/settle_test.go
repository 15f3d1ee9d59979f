package listenerprofiles

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// slowly writes data in steps of a tenth of a second, which end at each of cuts.
func (w *watch) slowly(name string, data []byte, cuts []int) {
	for _, cut := range append(cuts, len(data)) {
		w.disk.write(name, data[:cut])
		time.Sleep(100 * time.Millisecond)
	}
}

// everyKiB returns where to cut data of n bytes.
func everyKiB(n int) (cuts []int) {
	for cut := 0; cut < n; cut += 1 << 10 {
		cuts = append(cuts, cut)
	}
	return cuts
}

// J128: files that are written slowly in place are looked at in the middle of it, and count when they are whole: one
// interval and two seconds after at most. Of what they were in between nothing is told.
func TestSlowWritesInPlace(t *testing.T) {
	f := newFixture(t)
	f.xml(t, "127.0.0.1")
	var many []*party
	var between []int // exactly between two certificates, where a PEM file is well-formed
	for range 30 {
		between = append(between, len(certPEM(many...)))
		many = append(many, issue(t, "CA", nil, isCA))
	}
	long := []byte(profilesXML("127.0.0.1 verify=require") + "<!--" + strings.Repeat(" comment", 500) + "-->")
	tests := []struct {
		name, file string
		data       []byte
		cuts       []int
	}{
		{"trust store, certificate by certificate", "trust.pem", certPEM(many...), between},
		{"trust store, a KiB at a time", "trust.pem", certPEM(many...), everyKiB(len(certPEM(many...)))},
		{"file", "listenerprofiles.xml", long, everyKiB(len(long))},
		{"key store", "server.pem", f.second.pem(t), []int{0, len(certPEM(f.second)), len(certPEM(f.second)) + 40}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := startWatch(t, f, func(c *Config) { c.Settle, c.FileReadInterval, c.StoreReadInterval = 0, time.Second, time.Second })
				w.slowly(tt.file, tt.data, tt.cuts)
				w.after(t, 3*time.Second, 2, 0)
				p := w.last.Load().Profiles()[0]
				switch tt.file {
				case "trust.pem":
					if got := len(p.Trust.Certificates()); got != len(many) {
						t.Errorf("%d certificates of %d", got, len(many))
					}
				case "server.pem":
					if !p.Leafs[0].Equal(f.second.cert) {
						t.Error("not the new key")
					}
				default:
					if p.VerifyClient != Require {
						t.Error("not the new file")
					}
				}
			})
		})
	}
}

// Files that don't rest are waited for again and again, and count when they do.
func TestFilesThatDoNotRest(t *testing.T) {
	f := newFixture(t)
	f.xml(t, "127.0.0.1")
	synctest.Test(t, func(t *testing.T) {
		w := startWatch(t, f, func(c *Config) { c.Settle = 0 })
		began := time.Now()
		for n := 0; time.Since(began) < time.Minute; n++ {
			data := certPEM(f.ca)
			if n%2 == 0 {
				data = bytes.Repeat([]byte{'x'}, n) // broken, each time in another way
			}
			w.disk.write("trust.pem", data)
			time.Sleep(150 * time.Millisecond)
		}
		w.after(t, 0, 1, 0)
		w.disk.write("trust.pem", certPEM(f.other))
		w.after(t, 12*time.Second, 2, 0)

		// The file is due in ten minutes only; once it did not rest, it is looked at with the stores.
		time.Sleep(10*time.Minute - time.Since(began)%(10*time.Minute) - time.Second)
		for n := range 30 {
			w.disk.write("listenerprofiles.xml", []byte(profilesXML("127.0.0.1")[:100+n]))
			time.Sleep(150 * time.Millisecond)
		}
		w.disk.write("listenerprofiles.xml", []byte(profilesXML("127.0.0.1 verify=require")))
		w.after(t, 12*time.Second, 3, 0)
	})
}

// How long looks wait: not at all for what they know, for Settle when there is news, and about two seconds at most.
func TestHowLongLooksWait(t *testing.T) {
	f := newFixture(t)
	f.xml(t, "127.0.0.1")
	for _, tt := range []struct{ settle, rested, restless time.Duration }{
		{0, 200 * time.Millisecond, 2 * time.Second},
		{300 * time.Millisecond, 300 * time.Millisecond, 1800 * time.Millisecond},
		{5 * time.Second, 5 * time.Second, 5 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			n := 0
			changing := false
			w := startWatch(t, f, func(c *Config) {
				c.Settle, c.StoreReadInterval = tt.settle, time.Hour
				read := c.ReadFile
				c.ReadFile = func(path string) ([]byte, error) {
					data, err := read(path)
					if changing && strings.HasSuffix(path, "trust.pem") {
						n++
						data = append(bytes.Clone(data), bytes.Repeat([]byte{'\n'}, n)...)
					}
					return data, err
				}
			})
			reload := func(what string, want time.Duration, good bool) {
				t.Helper()
				began := time.Now()
				if err := w.Reload(); (err == nil) != good {
					t.Errorf("%s: %v", what, err)
				}
				if got := time.Since(began); got != want {
					t.Errorf("%s: waited %v, want %v", what, got, want)
				}
			}
			reload("nothing changed", 0, true)
			w.disk.write("trust.pem", certPEM(f.other))
			reload("changed", tt.rested, true)
			reload("nothing changed", 0, true)
			w.disk.write("trust.pem", nil)
			reload("broken", tt.rested, false)
			reload("broken and told", 0, false)
			w.disk.write("trust.pem", certPEM(f.other))
			reload("mended", tt.rested, true)
			w.after(t, 0, 3, 1)

			changing = true
			reload("never the same", tt.restless, false)
			reload("never the same", tt.restless, false)
			w.after(t, 0, 3, 1)
			changing = false
			reload("as it was", 0, true)

			// What becomes in the wait what it was before is no news.
			w.disk.write("trust.pem", nil)
			go func() { time.Sleep(time.Millisecond); w.disk.write("trust.pem", certPEM(f.other)) }()
			reload("as it was, after all", tt.rested, true)
			w.after(t, 0, 3, 1)
		})
	}
}

// Whoever ends Run need not wait for files.
func TestWaitEndsWithRun(t *testing.T) {
	f := newFixture(t)
	f.xml(t, "127.0.0.1")
	synctest.Test(t, func(t *testing.T) {
		disk := startWatch(t, f, nil).disk
		cfg := f.config()
		cfg.ReadFile, cfg.Settle, cfg.StoreReadInterval = disk.read, time.Hour, time.Second
		first, err := Load(cfg, nil)
		if err != nil {
			t.Fatal(err)
		}
		disk.write("trust.pem", certPEM(f.other))
		w := NewWatcher(cfg, first, func(*Set) { t.Error("swapped") }, func(err error) { t.Error(err) })
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 2)
		go func() { ended <- w.Run(ctx) }()
		time.Sleep(2 * time.Second) // a look of Run waits
		go func() { _ = w.Reload(); ended <- nil }()
		synctest.Wait()
		began := time.Now()
		cancel()
		for range 2 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
		if got := time.Since(began); got != 0 {
			t.Errorf("it took %v", got)
		}
		if err := w.Reload(); err == nil {
			t.Error("a Watcher that has ended says that all is well")
		}
	})
}
