// Command sallyport is a mutual-TLS API gateway: it admits callers by client certificate or OAuth2 token, holds each
// certificate to its tier, and forwards to the API's backend.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"sallyport/cmd/sallyport/internal/config"
	"sallyport/gateway/control"
	"sallyport/internal/printable"
)

// Exit codes, which scripts rely on.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2 // wrong usage or wrong configuration: a restart would not help
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// run is the program: arguments in, exit code out.
func run(args []string, stdout, stderr io.Writer) int {
	printed := &checkedWriter{Writer: stdout}
	stdout, stderr = printable.NewWriter(printed), printable.NewWriter(stderr)
	cmd := newCommand()
	cmd.SetArgs(args)
	cmd.SetOut(stdout)
	cmd.SetErr(stderr)
	err := cmd.ExecuteContext(context.Background())
	if err == nil {
		err = printed.err
	} else if errors.Is(err, errQuiet) && printed.err != nil {
		fmt.Fprintln(stderr, "sallyport:", printed.err)
	}
	var list control.Problems
	switch {
	case err == nil:
		return exitDone
	case errors.Is(err, errQuiet):
	case errors.As(err, &list):
		fmt.Fprintln(stderr, err) // each line begins with its place, as editors expect
	default:
		fmt.Fprintln(stderr, "sallyport:", err)
	}
	return exitCode(err)
}

// exitCode is what an error ends the program with.
func exitCode(err error) int {
	var list control.Problems
	if errors.As(err, &list) && list.Passing() || list == nil && !errors.Is(err, errUsage) {
		return exitFailed
	}
	return exitUsage
}

// A checkedWriter remembers why a write failed: what a command prints is its result.
type checkedWriter struct {
	io.Writer
	err error
}

func (w *checkedWriter) Write(p []byte) (int, error) {
	n, err := w.Writer.Write(p)
	if err == nil {
		return n, nil
	}
	if path := (*fs.PathError)(nil); errors.As(err, &path) {
		err = path.Err // the rest is the name that Go has for it
	}
	err = fmt.Errorf("standard output: %w", err)
	if w.err == nil {
		w.err = err
	}
	return n, err
}

// errUsage is in the chain of errors that the user fixes by calling differently or by changing the configuration.
var errUsage = errors.New("wrong usage")

// errQuiet ends the program with exit code 1 when everything has been printed.
var errQuiet = errors.New("done with problems")

// usage marks err as a matter of usage without adding words.
func usage(err error) error {
	if err == nil {
		return nil
	}
	return usageError{err}
}

type usageError struct{ error }

func (e usageError) Unwrap() []error { return []error{e.error, errUsage} }

func newCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "sallyport",
		Short: "A mutual-TLS API gateway",
		Long: `Sallyport is a mutual-TLS API gateway. It admits callers by client certificate or
OAuth2 token, holds each certificate to its tier, and forwards to the API's backend.

Begin with:  sallyport quickstart`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          noSuchCommand,
	}
	version := root.Flags().Bool("version", false, "print version, commit and Go version")
	root.RunE = func(cmd *cobra.Command, _ []string) error {
		if *version {
			return printVersion(cmd.OutOrStdout())
		}
		return cmd.Help()
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		if args := cmd.Flags().Args(); cmd.HasSubCommands() && len(args) > 0 {
			return noSuchCommand(cmd, args) // the flag is for the command that was meant
		}
		if wrong := (*pflag.InvalidValueError)(nil); errors.As(err, &wrong) {
			flag := wrong.GetFlag()
			err = fmt.Errorf("--%s %q is not %s", flag.Name, wrong.GetValue(), flagValues[flag.Value.Type()])
		}
		return usage(fmt.Errorf("%w: %s --help lists the flags", err, cmd.CommandPath()))
	})
	root.AddCommand(quickstartCommand(), serveCommand(), validateCommand(), certCommand(), certificatesCommand(), configCommand(), storeCommand(),
		explainCommand(), healthCommand(), versionCommand())
	return root
}

// flagValues are what the types of flags take.
var flagValues = map[string]string{
	"bool":        "true or false",
	"int":         "a whole number",
	"stringSlice": "a list with commas in between",
}

// configFileFlag adds -c to a command and returns how to find what it names.
func configFileFlag(cmd *cobra.Command) func() (string, error) {
	file := cmd.Flags().StringP("config", "c", "",
		"configuration `FILE` (default sallyport.yaml, then /etc/sallyport/sallyport.yaml)")
	return func() (string, error) {
		found, err := config.Find(*file)
		return found, usage(err)
	}
}

// configFlag adds -c to a command and returns how to load what it names.
func configFlag(cmd *cobra.Command) func() (*config.Config, error) {
	return configBy(cmd, loadConfig)
}

func configBy(cmd *cobra.Command, load func(file string) (*config.Config, error)) func() (*config.Config, error) {
	find := configFileFlag(cmd)
	return func() (*config.Config, error) {
		file, err := find()
		if err != nil {
			return nil, err
		}
		return load(file)
	}
}

// lenientFlag is configFlag for commands that do without the API files which are not good: when something is wrong, they
// are needed most. The command names these files by tellFenced.
func lenientFlag(cmd *cobra.Command) func() (*config.Config, error) {
	return configBy(cmd, loadLenient)
}

// soundFlag is lenientFlag for commands that build nothing of the configuration: the files are named when it is loaded.
func soundFlag(cmd *cobra.Command) func() (*config.Config, error) {
	load := lenientFlag(cmd)
	return func() (*config.Config, error) {
		cfg, err := load()
		if err == nil {
			tellFenced(cmd.ErrOrStderr(), cfg.Units)
		}
		return cfg, err
	}
}

// tellFenced names the API files without which a command does.
func tellFenced(w io.Writer, units []control.Unit) {
	for _, u := range units {
		if u.Fenced() {
			fmt.Fprintf(w, "note: without an API file that is not good:\n%v\n", u.Problems)
		}
	}
}

func loadConfig(file string) (*config.Config, error) {
	cfg, err := config.Load(file)
	if err != nil {
		return nil, usage(err)
	}
	return cfg, nil
}

// outputFlag adds -o to a command and returns whether JSON is wanted.
func outputFlag(cmd *cobra.Command) func() (bool, error) {
	format := cmd.Flags().StringP("output", "o", "text", "`FORMAT` of the output: text or json")
	return func() (bool, error) {
		switch *format {
		case "text":
			return false, nil
		case "json":
			return true, nil
		}
		return false, usage(fmt.Errorf("--output %q is neither text nor json", *format))
	}
}

func printJSON(out io.Writer, v any) error {
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	return encoder.Encode(v)
}

// noSuchCommand is for commands that only hold others: whatever follows them is a command that is not there.
func noSuchCommand(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		meant := ""
		cmd.SuggestionsMinimumDistance = 2 // letters that may differ
		like := cmd.SuggestionsFor(args[0])
		if begins := slices.DeleteFunc(slices.Clone(like), func(s string) bool { return !strings.HasPrefix(s, args[0]) }); len(begins) > 0 {
			like = begins
		}
		slices.Sort(like)
		if like = slices.Compact(like); len(like) > 0 {
			meant = fmt.Sprintf(" (did you mean %s?)", strings.Join(like, " or "))
		}
		return usage(fmt.Errorf("unknown command %q%s: %s --help lists the commands", args[0], meant, cmd.CommandPath()))
	}
	return nil
}

func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usage(fmt.Errorf("%s takes no argument, and got %q: see %s --help",
			cmd.CommandPath(), args[0], cmd.CommandPath()))
	}
	return nil
}
