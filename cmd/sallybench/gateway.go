package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"sallyport/bench/compare"
	"sallyport/bench/peer"
	"sallyport/bench/process"
	"sallyport/bench/progress"
	"sallyport/bench/sandbox"
)

// openFiles is enough for ten thousand connections on both sides of this process.
const openFiles = 65536

// gatewayFlags are the flags of all commands that run gateways, which they do in a sandbox.
type gatewayFlags struct {
	sallyport   string
	workers     int
	noNamespace bool
	keep        string
	cores       []int // hidden: the machine's, because the process in the sandbox is pinned to some
}

func (f *gatewayFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.sallyport, "sallyport", "",
		"the sallyport `PROGRAM` (default: beside this one, or built from the module in the current folder)")
	flags.IntVar(&f.workers, "workers", 1, "`N` workers, on N cores, of each gateway; the load has the other cores")
	flags.BoolVar(&f.noNamespace, "no-namespace", false, "measure on the machine's own loopback, also as root")
	flags.StringVar(&f.keep, "keep", "", "keep certificates, configurations and logs in `FOLDER`, empty or new")
	flags.IntSliceVar(&f.cores, "cores", nil, "")
	if err := flags.MarkHidden("cores"); err != nil {
		panic(err) // there is no such flag
	}
}

// A bench is what a measurement in the sandbox works with.
type bench struct {
	compare.Division
	network  string         // its description in the report
	self     string         // this program
	program  peer.Program   // Sallyport
	folder   string         // for all files
	progress *progress.Line // on standard error
}

// inside runs measure in a new process on the load's cores and, as root on Linux, in a network namespace of its own.
// before runs first, outside the sandbox; it may be nil.
func (f *gatewayFlags) inside(cmd *cobra.Command, before func() error, measure func(bench) error) error {
	if f.workers < 1 {
		return usage(fmt.Errorf("--workers %d: at least 1", f.workers))
	}
	if sandbox.Inside() == "" {
		return f.enter(cmd, before)
	}
	if err := errors.Join(sandbox.Prepare(), process.RaiseFiles(openFiles)); err != nil {
		return err
	}
	b := bench{
		Division: compare.Divide(f.cores, f.workers),
		network:  sandbox.Inside(),
		progress: progress.New(cmd.ErrOrStderr()),
	}
	var err error
	if b.self, err = os.Executable(); err != nil {
		return err
	}
	if b.program, err = peer.Kinds[0].Locate(f.sallyport); err != nil {
		return usage(fmt.Errorf("--sallyport: %w", err))
	}
	folder, remove, err := f.folder()
	if err != nil {
		return err
	}
	b.folder = folder
	return errors.Join(measure(b), remove())
}

// enter does what has to happen outside the sandbox, and runs this program again inside.
func (f *gatewayFlags) enter(cmd *cobra.Command, before func() error) error {
	if before != nil {
		if err := before(); err != nil {
			return err
		}
	}
	program, remove, err := findSallyport(f.sallyport, cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	cores := process.Cores()
	list := strings.ReplaceAll(strings.Trim(fmt.Sprint(cores), "[]"), " ", ",")
	args := append(os.Args[1:], "--sallyport="+program)
	if list != "" {
		args = append(args, "--cores="+list)
	}
	code, err := sandbox.Run(cmd.Context(), args, compare.Divide(cores, f.workers).LoadCores, !f.noNamespace)
	if err = errors.Join(err, remove()); err != nil {
		return err
	}
	if code != 0 {
		return exitCode(code)
	}
	return nil
}

// folder creates the folder for all files, and returns a function that removes it.
func (f *gatewayFlags) folder() (string, func() error, error) {
	if f.keep == "" {
		folder, err := os.MkdirTemp("", "sallybench-")
		return folder, func() error { return os.RemoveAll(folder) }, err
	}
	folder, err := filepath.Abs(f.keep)
	if err == nil {
		err = os.MkdirAll(folder, 0o700)
	}
	if err != nil {
		return "", nil, usage(fmt.Errorf("--keep: %w", err))
	}
	if files, err := os.ReadDir(folder); err != nil || len(files) > 0 {
		return "", nil, usage(fmt.Errorf("--keep: %s is not empty", f.keep))
	}
	return folder, func() error { return nil }, nil
}
