// Package quickstart makes the demonstration: a folder with everything a gateway needs, its backend and its token
// issuer.
package quickstart

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"sallyport/certstore"
)

// DefaultDir is the folder that Make uses when Options name none.
const DefaultDir = "sallyport-quickstart"

// ErrUsage is in the chain of every error that the user mends by asking for something else: another port offset,
// or another folder than one that is not ours, was edited, is incomplete or has expired. Nothing was changed then.
var ErrUsage = errors.New("quickstart")

// Options say where the demonstration goes and which ports it takes.
type Options struct {
	Dir        string           // the folder to make or to use again; "" means DefaultDir
	PortOffset int              // added to every port; 0 means the ports of the documentation
	Now        func() time.Time // the clock for validity and tokens; nil means time.Now
}

// A Registrar creates the store at storeURL ("sqlite:" and an absolute path), registers clients and closes the store:
// all of them, also the one whose certificate has expired, or it returns an error. The folder moves once it has
// returned, so no file of the store may stay open.
type Registrar func(ctx context.Context, storeURL string, clients []certstore.Client) error

// A Demo is a demonstration that is ready to be served: a folder on disk, and the two servers beside the gateway.
type Demo struct {
	Dir        string // the folder, as Options named it, cleaned
	ConfigFile string // sallyport.yaml in Dir
	Ports      Ports
	Reused     bool // Dir was there already: its keys, secrets, certificates, tokens and database were kept

	held    *os.File
	edited  bool // sallyport.yaml is not as it was generated
	now     func() time.Time
	issuer  *issuer
	backend backend
}

// Make makes the demonstration in opts.Dir, or uses the one that is there again.
//
// A new folder is built beside its place and renamed into it when it is complete and on disk, so that a crash, an
// error or the end of ctx leaves either all of it or none. In a folder that is there, only the ports in sallyport.yaml
// may change, and only while that file is as it was generated. What is missing under curl/ is written anew.
//
// The folder is the Demo's until Close: another Make, of this process or of another, fails with ErrUsage.
func Make(ctx context.Context, opts Options, register Registrar) (*Demo, error) {
	ports, err := PortsAt(opts.PortOffset)
	if err != nil {
		return nil, err
	}
	d := &Demo{Ports: ports, now: opts.Now}
	if d.now == nil {
		d.now = time.Now
	}
	f, err := locate(cmp.Or(opts.Dir, DefaultDir))
	if err != nil {
		return nil, err
	}
	d.Dir, d.ConfigFile = f.shown, f.shownPath(fileSettings)

	if d.Reused, err = f.ours(); err != nil {
		return nil, err
	}
	if !d.Reused {
		made, err := f.build(ctx, ports, d.now(), register)
		if err != nil {
			if file := (*fs.PathError)(nil); errors.As(err, &file) { // no right to write there, or no room
				err = fmt.Errorf("%w: name another folder with --dir", err)
			}
			return nil, fmt.Errorf("making %s: %w", f.shown, err)
		}
		d.Reused = !made
	}
	if err := d.open(f); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// Close lets others have the folder.
func (d *Demo) Close() error {
	if d.held == nil {
		return nil
	}
	return d.held.Close()
}

// open checks the folder, reads what the issuer needs and brings its ports to d's.
func (d *Demo) open(f *folder) error {
	m, err := f.readMarker()
	if err != nil {
		return err
	}
	if d.held, err = f.lock(); err != nil {
		return err
	}
	if err := f.complete(); err != nil {
		return err
	}
	if now := d.now(); !now.Before(m.Until) {
		return fmt.Errorf("%w: the demonstration in %s has expired: its tokens and certificates ended on %s; "+
			"remove the folder, or name another one with --dir", ErrUsage, f.shown, m.Until.Format(time.DateOnly))
	}
	if d.issuer, err = f.openIssuer(d.now); err != nil {
		return err
	}
	// Only now does anything change.
	if d.edited, err = f.settle(m, d.Ports); err != nil {
		return err
	}
	if err := f.fillCurl(); err != nil {
		return err
	}
	return f.protect()
}
