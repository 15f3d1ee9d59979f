// Package peer configures and runs the gateways of a comparison, each with its best settings for the same work.
package peer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"sallyport/bench/pki"
	"sallyport/bench/port"
	"sallyport/bench/process"
)

// A Kind is a gateway program. Each serves HTTP/1.1 and HTTP/2 over HTTPS with client certificates required, and plain
// HTTP for a load balancer that forwards the certificate in a header. All forward to one backend over kept connections.
type Kind struct {
	Name    string // in flags and reports
	Title   string
	Debian  string // the Debian package
	program string
	version []string
	first   string                       // precedes the version in its output; empty: the whole line is the version
	files   func(Site) map[string]string // its configuration, by file name
	check   []string                     // arguments that check the configuration; FOLDER is replaced by its folder
	run     []string
}

// Kinds lists all kinds, Sallyport first.
var Kinds = []Kind{sallyport, nginx, haproxy, caddy}

// Find returns the kind with this name.
func Find(name string) (Kind, error) {
	var names []string
	for _, k := range Kinds {
		if k.Name == name {
			return k, nil
		}
		names = append(names, k.Name)
	}
	return Kind{}, fmt.Errorf("no peer %q: there are %s", name, strings.Join(names, ", "))
}

// A Site is the environment that one gateway is configured for.
type Site struct {
	Folder    string   // for this gateway alone, created by Configure
	PKI       *pki.Set // whose clients Sallyport registers
	Backend   string   // host:port
	HTTPS     string   // host:port to listen on, like HTTP and Status
	HTTP      string
	Status    string // Sallyport only
	Workers   int
	AccessLog bool   // to access.log in the folder
	Profiles  string // path of Sallyport's listenerprofiles.xml; empty: none
	Limit     Limit  // of each certificate on Sallyport; zero: one that is never reached
	Revoked   bool   // Sallyport looks up whether the CA has revoked clients' certificates
	Redis     Redis  // where Sallyport counts limits; zero: in its process

	TrustStore string   // whose clients Sallyport believes; empty: the PKI's CA
	CRLs       []string // files and URLs that Sallyport looks clients up in, and asks OCSP responders; empty: neither
}

// A Limit is what a tier says: a bucket of Burst calls, refilled with Count calls a Unit.
type Limit struct {
	Count int
	Unit  string // sec, min or hour
	Burst int
}

// units are the lengths of a Limit's Unit.
var units = map[string]time.Duration{"sec": time.Second, "min": time.Minute, "hour": time.Hour}

// Rate returns the calls that are refilled in a second; 0 if the Unit is unknown.
func (l Limit) Rate() float64 {
	if units[l.Unit] == 0 {
		return 0
	}
	return float64(l.Count) / units[l.Unit].Seconds()
}

// A Redis is the server that gateways count limits in.
type Redis struct {
	Address string        // host:port
	Wait    time.Duration // of a call, at most; 0: Sallyport's default
}

// A Program is a kind with the path of its executable.
type Program struct {
	Kind
	Path string
}

// Locate finds the executable: path, or if that is empty, one in PATH or in the folders for daemons.
func (k Kind) Locate(path string) (Program, error) {
	if path != "" {
		abs, err := filepath.Abs(path)
		if err == nil {
			_, err = exec.LookPath(abs)
		}
		return Program{k, abs}, err
	}
	for _, folder := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin", "/usr/local/sbin") {
		if found, err := exec.LookPath(filepath.Join(folder, k.program)); err == nil {
			return Program{k, found}, nil
		}
	}
	return Program{}, fmt.Errorf("%s: %w", k.program, exec.ErrNotFound)
}

// Sallyport reports whether the kind is Sallyport or another build of it. Only these check tokens and have Metrics.
func (k Kind) Sallyport() bool { return k.program == sallyport.program }

// Version returns the version that the program reports, or "unknown".
func (p Program) Version() string {
	version, err := p.AskVersion()
	if err != nil {
		return "unknown"
	}
	return version
}

// AskVersion is Version with an error: the program does not run, or should be Sallyport and is not.
func (p Program) AskVersion() (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, p.Path, p.version...).CombinedOutput()
	out = bytes.TrimSpace(out)
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %.200q", p.Path, strings.Join(p.version, " "), err, out)
	}
	line, _, _ := strings.Cut(string(out), "\n")
	if p.first == "" {
		version, ok := strings.CutPrefix(line, p.program+" ")
		if p.Sallyport() && !ok {
			return "", fmt.Errorf("%s %s: no version of %s: %.200q",
				p.Path, strings.Join(p.version, " "), p.program, out)
		}
		return strings.TrimSpace(version), nil
	}
	_, after, _ := strings.Cut(line, p.first)
	words := strings.Fields(after)
	if len(words) == 0 {
		return strings.TrimSpace(line), nil
	}
	return words[0], nil
}

// Configure writes the configuration into the site's folder and lets the program check it.
func (p Program) Configure(s Site) error {
	if err := os.MkdirAll(s.Folder, 0o700); err != nil {
		return fmt.Errorf("%s: %w", p.Name, err)
	}
	for name, text := range p.files(s) {
		if err := os.WriteFile(filepath.Join(s.Folder, name), []byte(text), 0o600); err != nil {
			return fmt.Errorf("%s: %w", p.Name, err)
		}
	}
	cmd := exec.Command(p.Path, inFolder(p.check, s.Folder)...)
	cmd.Dir = s.Folder
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s finds fault with its configuration in %s: %w\n%s", p.Name, s.Folder, err, out)
	}
	return nil
}

func inFolder(args []string, folder string) []string {
	list := slices.Clone(args)
	for i, a := range list {
		list[i] = strings.ReplaceAll(a, "FOLDER", folder)
	}
	return list
}

// A Gateway is a running gateway.
type Gateway struct {
	*process.Process
	Program
	Site
	output *os.File
}

// Start starts a configured gateway on the given cores and waits until it listens.
func (p Program) Start(ctx context.Context, s Site, cores []int) (*Gateway, error) {
	output, err := os.OpenFile(filepath.Join(s.Folder, "output.log"), os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.Name, err)
	}
	running, err := process.Start(process.Options{
		Cores: cores, Dir: s.Folder, Output: output,
		Env: []string{fmt.Sprintf("GOMAXPROCS=%d", s.Workers), "HOME=" + s.Folder},
	}, p.Path, inFolder(p.run, s.Folder)...)
	if err != nil {
		return nil, errors.Join(err, output.Close())
	}
	g := &Gateway{running, p, s, output}
	addresses := []string{s.HTTPS, s.HTTP}
	if p.Sallyport() {
		addresses = append(addresses, s.Status) // which may open last
	}
	for _, address := range addresses {
		if err := g.await(ctx, address); err != nil {
			return nil, errors.Join(fmt.Errorf("%w\n%s", err, g.said()), g.Stop())
		}
	}
	return g, nil
}

// Stop stops the gateway and waits for its end.
func (g *Gateway) Stop() error {
	err := g.Process.Stop()
	if err != nil {
		err = fmt.Errorf("%w\n%s", err, g.said())
	}
	return errors.Join(err, g.output.Close())
}

// said returns the end of the gateway's output.
func (g *Gateway) said() []byte {
	data, err := os.ReadFile(g.output.Name())
	if err != nil {
		return nil
	}
	return bytes.TrimSpace(data[max(0, len(data)-2000):])
}

// startWait is how long a gateway may take to listen. One that ends is not waited for.
const startWait = 2 * time.Minute

// await returns when something listens at address, or after startWait with an error.
func (g *Gateway) await(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	var d net.Dialer
	for {
		c, err := d.DialContext(ctx, "tcp", address)
		if err == nil {
			return c.Close()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s doesn't listen on %s: %w", g.Name, address, err)
		case <-g.Ended():
			return fmt.Errorf("%s ended at its start", g.Name)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Addresses are n free ones on loopback. They are kept for gateways, which start later, until this process ends.
func Addresses(n int) ([]string, error) {
	var list []string
	for range n {
		held, err := port.Hold(0) // and never let go: there are a few in a run
		if err != nil {
			return nil, fmt.Errorf("free ports: %w", err)
		}
		list = append(list, held.Address())
	}
	return list, nil
}

// within returns the path of a file in the PKI's folder.
func (s Site) within(name string) string { return filepath.Join(s.PKI.Folder, name) }
