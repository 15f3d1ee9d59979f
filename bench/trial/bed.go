// Package trial measures a gateway under operation: idle connections, reloads, revocations, long use, and limits that
// several share.
package trial

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"sallyport/bench/backend"
	"sallyport/bench/compare"
	"sallyport/bench/load"
	"sallyport/bench/peer"
	"sallyport/bench/pki"
	"sallyport/bench/process"
	"sallyport/bench/progress"
)

// A Setup is the environment of a trial. Folder and Backend are required.
type Setup struct {
	Folder   string   // for all files
	Backend  []string // the command that runs the backend, but for --address
	Progress *progress.Line
	compare.Division
}

// clients is how many certificates are registered at the start.
const clients = 100

// A bed is a gateway with a backend behind it.
type bed struct {
	Setup
	pki     *pki.Set
	gateway *peer.Gateway
	backend *process.Process
}

// open starts a gateway, with profiles one that reads its listener profiles from a file.
func (s Setup) open(ctx context.Context, p peer.Program, profiles bool) (*bed, error) {
	b := &bed{Setup: s}
	folder := filepath.Join(s.Folder, p.Name)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, err
	}
	var err error
	if b.pki, err = pki.Make(folder, clients); err != nil {
		return nil, err
	}
	addresses, err := peer.Addresses(4)
	if err != nil {
		return nil, err
	}
	args := append(s.Backend[1:], "--address", addresses[0])
	if b.backend, err = process.Start(process.Options{Cores: s.LoadCores}, s.Backend[0], args...); err != nil {
		return nil, err
	}
	site := peer.Site{
		Folder:  filepath.Join(folder, "gateway"),
		PKI:     b.pki,
		Backend: addresses[0],
		HTTPS:   addresses[1],
		HTTP:    addresses[2],
		Status:  addresses[3],
		Workers: max(1, s.Workers),
	}
	if profiles {
		site.Profiles = filepath.Join(folder, profilesFile)
		if err := errors.Join(b.pki.NewServer("other"), b.writeProfiles(0)); err != nil {
			return nil, errors.Join(err, b.backend.Stop())
		}
	}
	if err = p.Configure(site); err == nil {
		b.gateway, err = p.Start(ctx, site, s.GatewayCores)
	}
	if err != nil {
		return nil, errors.Join(err, b.backend.Stop())
	}
	return b, nil
}

func (b *bed) close() error { return errors.Join(b.gateway.Stop(), b.backend.Stop()) }

func (b *bed) calls() load.Config { return calls(b.pki, b.gateway) }

// calls returns a load of 1 KiB answers over mTLS, with the clients' certificates in turn.
func calls(set *pki.Set, g *peer.Gateway) load.Config {
	_, port, _ := net.SplitHostPort(g.HTTPS) // our own addresses always have a port
	return load.Config{
		URL: "https://localhost:" + port + "/bench/1k", Address: g.HTTPS, Identities: set.Identities,
		TLS:  &tls.Config{RootCAs: set.Roots, CurvePreferences: []tls.CurveID{tls.X25519}},
		Want: load.Want{Status: http.StatusOK, Body: backend.Body(backend.Sizes["1k"])},
	}
}

// cert runs sallyport cert for the API that the calls are for.
func (b *bed) cert(ctx context.Context, verb string, args ...string) error {
	return command(ctx, b.gateway, append([]string{"cert", verb, "--api", peer.API}, args...)...)
}

// command runs a command of sallyport beside a gateway.
func command(ctx context.Context, g *peer.Gateway, args ...string) error {
	all := append(args[:len(args):len(args)], "-c", filepath.Join(g.Folder, "sallyport.yaml"))
	if out, err := exec.CommandContext(ctx, g.Path, all...).CombinedOutput(); err != nil {
		return fmt.Errorf("sallyport %s: %w\n%s", strings.Join(args[:2], " "), err, out)
	}
	return nil
}

func (b *bed) register(ctx context.Context, name string) error {
	return b.cert(ctx, "add", "--alias", name, "--tier", peer.Tier, filepath.Join(b.pki.Folder, "clients", name+".crt"))
}

func (b *bed) unregister(ctx context.Context, name string) error {
	return b.cert(ctx, "remove", "--alias", name)
}

const profilesFile = "listenerprofiles.xml"

// writeProfiles writes the n-th profiles, whose server certificate differs from that of the previous ones.
func (b *bed) writeProfiles(n int) error {
	server := []string{"server.pem", "other.pem"}[n%2]
	text := fmt.Sprintf(`<parameter name="SSLProfiles">
<profile>
<bindAddress>0.0.0.0</bindAddress>
<KeyStore><Location>%s</Location><Type>PEM</Type></KeyStore>
<TrustStore><Location>%s</Location><Type>PEM</Type></TrustStore>
<SSLVerifyClient>require</SSLVerifyClient>
</profile>
</parameter>
`, filepath.Join(b.pki.Folder, server), filepath.Join(b.pki.Folder, pki.CA))
	file := filepath.Join(b.pki.Folder, profilesFile)
	if err := replace(file, []byte(text)); err != nil {
		return fmt.Errorf("profiles: %w", err)
	}
	return nil
}

// replace puts a file in place as a whole.
func replace(file string, data []byte) error {
	if err := os.WriteFile(file+".new", data, 0o600); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}

// reload writes the n-th profiles and makes the gateway reload everything.
func (b *bed) reload(n int) error {
	return errors.Join(b.writeProfiles(n), b.gateway.Signal(syscall.SIGHUP))
}

// Names of Sallyport's metrics.
const (
	goroutines = "go_goroutines"
	reloads    = `sallyport_reloads_total{what="profiles of listener https"}`
)

// metric reads one of Sallyport's metrics; one that does not exist yet is 0.
func (b *bed) metric(ctx context.Context, name string) (float64, error) {
	values, err := b.gateway.Metrics(ctx, name)
	if err != nil {
		return 0, err
	}
	return values[0], nil
}

// await polls until f reports true, for at most limit.
func await(ctx context.Context, what string, limit time.Duration, f func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		if ok, err := f(); ok || err != nil {
			return err
		}
		if !pause(ctx, 2*time.Millisecond) {
			return fmt.Errorf("%s: not within %v", what, limit)
		}
	}
}

// pause waits for d, and reports whether ctx is still valid.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
