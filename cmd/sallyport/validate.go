package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"sallyport/cmd/sallyport/internal/config"
	"sallyport/gateway"
	"sallyport/gateway/control"
	"sallyport/internal/regularfile"
)

func validateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "validate",
		Short: "Check everything that serve would load",
		Long: `Check everything that serve would load: the configuration, API files, keystores,
listenerprofiles.xml, key managers' files and the store, which is not changed. Each
problem is printed as file:line:column: message. Every route that needs no credential
is named.`,
		Args: noArgs,
	}
	load := configFlag(cmd)
	asJSON := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		wantJSON, err := asJSON()
		if err != nil {
			return err
		}
		out := cmd.OutOrStdout()
		report, err := validate(cmd, load)
		if wantJSON {
			var list control.Problems
			if err != nil && !errors.As(err, &list) {
				return err
			}
			for _, e := range list {
				report.Problems = append(report.Problems, placed{e.File, e.Line, e.Column, e.Message})
			}
			return errors.Join(printJSON(out, report), quiet(err))
		}
		if err != nil {
			return err
		}
		report.print(out)
		return nil
	}
	return cmd
}

// quiet keeps the exit code of an error whose text was printed already.
func quiet(err error) error {
	switch {
	case err == nil:
		return nil
	case exitCode(err) == exitUsage:
		return errors.Join(errQuiet, errUsage)
	}
	return errQuiet
}

// A validation is what validate found; its fields are the JSON form.
type validation struct {
	File         string      `json:"file"`
	Problems     []placed    `json:"problems"`
	Warnings     []string    `json:"warnings"`
	Open         []openRoute `json:"needsNoCredential"`
	APIs         []apiReport `json:"apis"`
	Labels       []string    `json:"labels,omitempty"`    // of this gateway
	Elsewhere    []leftOut   `json:"notServed,omitempty"` // since their labels are others
	Certificates int         `json:"clientCertificates"`
}

type placed struct {
	File    string `json:"file"`
	Line    int    `json:"line,omitempty"`
	Column  int    `json:"column,omitempty"`
	Message string `json:"message"`
}

type openRoute struct {
	API      string `json:"api"`
	Resource string `json:"resource"`
}

type leftOut struct {
	API    string   `json:"api"`
	Labels []string `json:"labels"`
}

type apiReport struct {
	API       string   `json:"api"`
	Paths     []string `json:"paths"`
	Security  string   `json:"security"`
	Listeners []string `json:"listeners"`
}

func validate(cmd *cobra.Command, load func() (*config.Config, error)) (validation, error) {
	report := validation{Problems: []placed{}, Warnings: []string{}, Open: []openRoute{}, APIs: []apiReport{}}
	cfg, err := load()
	if err != nil {
		return report, err
	}
	report.File, report.Labels = cfg.Place.File, cfg.Labels
	a, err := control.Build(cmd.Context(), &cfg.Spec)
	if err != nil {
		return report, usage(err)
	}
	defer a.Close()
	if problems := unwritable(cfg, a.StoreForeign()); len(problems) > 0 {
		return report, usage(problems)
	}
	report.Warnings = slices.Concat(report.Warnings, listenable(cfg), doubts(cfg, a))
	report.Certificates = len(a.Clients.All())
	for _, api := range cfg.LeftOut {
		report.Elsewhere = append(report.Elsewhere, leftOut{api.API.String(), api.Labels})
	}
	for i, r := range a.Routes.Routes() {
		report.APIs = append(report.APIs, apiReport{
			API: r.API.String(), Paths: r.Places(), Security: strings.Join(cfg.APIs[i].Words, ", "), Listeners: r.Listeners,
		})
		for _, open := range r.OpenResources() {
			report.Open = append(report.Open, openRoute{r.API.String(), open})
		}
	}
	return report, nil
}

// doubts are what is worth a second look in a configuration that is good.
func doubts(cfg *config.Config, a *control.Assembly) (warnings []string) {
	warnings = append(warnings, a.OutOfReach()...)
	warnings = append(warnings, a.StaleLists()...)
	for _, w := range slices.Concat(cfg.Warnings, a.IgnoredKeys(), a.StoreWarnings()) {
		warnings = append(warnings, w.Error())
	}
	for _, w := range a.Warnings {
		warnings = append(warnings, w.Error())
	}
	for _, e := range a.Endings(time.Now()) {
		if e.Kind == control.KindClient && e.Within == 0 {
			continue // Prospects says that it admits nobody
		}
		warnings = append(warnings, e.String())
	}
	for _, w := range a.Prospects(time.Now()) {
		warnings = append(warnings, w.Error())
	}
	return warnings
}

// unwritable finds what serve would write to and this user may not. A foreign store is only read.
func unwritable(cfg *config.Config, foreign bool) (problems control.Problems) {
	if file := storeFile(cfg); file != "" && !foreign {
		err := regularfile.Writable(file)
		if err == nil {
			err = regularfile.WritableFolder(filepath.Dir(file)) // for its journal
		}
		if err != nil {
			problems.Add(cfg.Store.Place, fmt.Errorf("store: this user may not write to it: %w: "+
				"give its file and folder to the user that serves, or validate as that user", err))
		}
	}
	if file := cfg.Snapshot; file != "" {
		if err := regularfile.WritableFolder(filepath.Dir(file)); err != nil {
			problems.Add(cfg.Store.Keys["snapshot"], fmt.Errorf("snapshot %s: %w: %s, or validate as that user", file, err, writableAdvice))
		}
	}
	if place := cfg.AccessPlace(); place != (control.Place{}) {
		if err := regularfile.Writable(cfg.Log.Access); err != nil {
			problems.Add(place, fmt.Errorf("access %s: %w: %s, or validate as that user", cfg.Log.Access, err, writableAdvice))
		}
	}
	return problems
}

// writableAdvice is for a file that can't be written.
const writableAdvice = "make its folder, and give it to the user that serves"

// listenable tells of addresses that can't be listened on here, on whatever machine this is. A UDP socket finds out
// without touching a gateway that runs.
func listenable(cfg *config.Config) (warnings []string) {
	addresses := map[string]string{}
	for _, l := range cfg.Listeners {
		addresses["listener "+l.Name] = l.Address
	}
	if cfg.Status != "" {
		addresses["status"] = cfg.Status
	}
	for _, name := range slices.Sorted(maps.Keys(addresses)) {
		socket, err := net.ListenPacket("udp", addresses[name])
		switch {
		case err == nil:
			socket.Close()
		case !errors.Is(err, syscall.EADDRINUSE): // by something else that talks UDP
			warnings = append(warnings, fmt.Sprintf("%s: %s can't be listened on here: %v", name, addresses[name], gateway.Advise(err)))
		}
	}
	return warnings
}

func (v validation) print(out io.Writer) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "API\tPATHS\tSECURITY\tLISTENERS")
	for _, a := range v.APIs {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", a.API, strings.Join(a.Paths, " "), a.Security, strings.Join(a.Listeners, " "))
	}
	w.Flush()
	if len(v.Elsewhere) > 0 {
		fmt.Fprintf(out, "\nNot served here, since the labels of this gateway are %s:\n", strings.Join(v.Labels, ", "))
		for _, api := range v.Elsewhere {
			fmt.Fprintf(out, "  %s  %s\n", api.API, strings.Join(api.Labels, ", "))
		}
	}
	if len(v.Open) > 0 {
		fmt.Fprintln(out, "\nNeeds no credential:")
		for _, o := range v.Open {
			fmt.Fprintf(out, "  %s  %s\n", o.API, o.Resource)
		}
	}
	if len(v.Warnings) > 0 {
		fmt.Fprintln(out, "\nWorth a second look:")
		for _, w := range v.Warnings {
			fmt.Fprintf(out, "  %s\n", w)
		}
	}
	fmt.Fprintf(out, "\n%s is good: %s, %s.\n", v.File, count(len(v.APIs), "API"), count(v.Certificates, "client certificate"))
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
