// Command sallybench measures Sallyport beside other gateways, and under operation.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// Exit codes, which scripts rely on.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// run executes the program with args and returns its exit code.
func run(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	cmd := newCommand()
	cmd.SetArgs(args)
	cmd.SetOut(stdout)
	cmd.SetErr(stderr)
	err := cmd.ExecuteContext(ctx)
	var code exitCode
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &code):
		return int(code)
	}
	fmt.Fprintln(stderr, "sallybench:", err)
	if errors.Is(err, errUsage) {
		return exitUsage
	}
	return exitFailed
}

// errUsage is wrapped by errors that the user fixes by calling the program differently.
var errUsage = errors.New("wrong usage")

// usage marks err with errUsage and leaves its text as it is.
func usage(err error) error {
	if err == nil {
		return nil
	}
	return usageError{err}
}

type usageError struct{ error }

func (e usageError) Unwrap() []error { return []error{e.error, errUsage} }

// An exitCode ends the program without another message.
type exitCode int

func (c exitCode) Error() string { return fmt.Sprintf("exit code %d", int(c)) }

func newCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "sallybench",
		Short: "Measure Sallyport and other gateways",
		Long: `Sallybench measures gateways: Sallyport beside NGINX, HAProxy and Caddy on the same work,
Sallyport alone under operation, and any server with client certificates.

Begin with:  sallybench compare --quick`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          noSuchCommand,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usage(fmt.Errorf("%w: %s --help lists the flags", err, cmd.CommandPath()))
	})
	root.CompletionOptions.DisableDefaultCmd = true
	root.AddCommand(
		compareCommand(),
		loadCommand(),
		soakCommand(),
		idleCommand(),
		reloadCommand(),
		revokeCommand(),
		overshootCommand(),
		backendCommand(),
	)
	return root
}

// noSuchCommand is for commands that only have subcommands: any argument is an unknown command.
func noSuchCommand(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usage(fmt.Errorf("unknown command %q: %s --help lists the commands", args[0], cmd.CommandPath()))
	}
	return nil
}

func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usage(fmt.Errorf("%s takes no arguments, and got %q: see %s --help",
			cmd.CommandPath(), args[0], cmd.CommandPath()))
	}
	return nil
}
