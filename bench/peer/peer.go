// Package peer configures and runs the gateways that are compared, each at its best for the same work.
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

// A Kind is a gateway program. All of them serve HTTPS with client certificates required, HTTP/1.1 and HTTP/2, and plain
// HTTP for a load balancer that hands certificates on in a header; all forward to one backend over kept connections.
type Kind struct {
	Name    string // as flags and reports have it
	Title   string
	Debian  string // the package that holds it, if Debian has one
	program string
	version []string
	first   string                       // what stands before the version in what it says; empty: all that it says
	files   func(Site) map[string]string // its configuration, by file name
	check   []string                     // arguments that have it check the configuration; FOLDER stands for its folder
	run     []string
}

// Kinds are all there are, Sallyport first.
var Kinds = []Kind{sallyport, nginx, haproxy, caddy}

// Find returns the kind of that name.
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

// A Site is what one gateway is to be set up for.
type Site struct {
	Folder    string   // its own, made by Configure
	PKI       *pki.Set // beside it; clients are registered where the gateway registers clients
	Backend   string   // host:port
	HTTPS     string   // host:port to listen on, as the two below
	HTTP      string
	Status    string // Sallyport's alone
	Workers   int
	AccessLog bool   // as access.log in the folder
	Profiles  string // Sallyport's listenerprofiles.xml, if it is to have one
}

// A Program is a kind with where its program is.
type Program struct {
	Kind
	Path string
}

// Locate finds the kind's program: path if that isn't empty, else in PATH and where daemons are.
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

// Version is what the program says of its version.
func (p Program) Version() string {
	out, err := exec.Command(p.Path, p.version...).CombinedOutput()
	if err != nil {
		return "unknown"
	}
	line, _, _ := strings.Cut(string(out), "\n")
	if p.first == "" {
		return strings.TrimSpace(strings.TrimPrefix(line, p.Name))
	}
	_, after, _ := strings.Cut(line, p.first)
	words := strings.Fields(after)
	if len(words) == 0 {
		return strings.TrimSpace(line)
	}
	return words[0]
}

// Configure writes the configuration into the site's folder and has the program check it.
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

// A Gateway is one that runs.
type Gateway struct {
	*process.Process
	Program
	Site
	output *os.File
}

// Start runs a configured gateway on cores and waits until it listens.
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
	for _, address := range []string{s.HTTPS, s.HTTP} {
		if err := g.await(ctx, address); err != nil {
			return nil, errors.Join(fmt.Errorf("%w\n%s", err, g.said()), g.Stop())
		}
	}
	return g, nil
}

// Stop ends the gateway and waits for it.
func (g *Gateway) Stop() error {
	err := g.Process.Stop()
	if err != nil {
		err = fmt.Errorf("%w\n%s", err, g.said())
	}
	return errors.Join(err, g.output.Close())
}

// said is the end of what the gateway printed.
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

// within is a file of the PKI's folder.
func (s Site) within(name string) string { return filepath.Join(s.PKI.Folder, name) }
