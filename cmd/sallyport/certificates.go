package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"sallyport/gateway/control"
	"sallyport/internal/printable"
)

// certificateKinds are the words for kinds of certificates, in the order in which they are told.
var certificateKinds = []struct{ kind, word string }{
	{control.KindServer, "server"},
	{control.KindClient, "registered"},
	{control.KindTrustStore, "CA"},
	{control.KindBalancer, "balancer"},
	{control.KindUpstream, "upstream"},
	{control.KindKeyManager, "key-manager"},
}

func wordOfKind(kind string) string {
	for _, k := range certificateKinds {
		if k.kind == kind {
			return k.word
		}
	}
	return kind
}

func certificatesCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "certificates",
		Short: "List every certificate by its end: server, registered, CA, balancer",
		Long: `List every certificate that the configuration and the store name, used or not, the
first to end first: what it is, when it ends, whether it is renewed by itself, and where
it is from. The gateway need not run, and nothing is changed. With --within 30d only
those are listed that end within 30 days or have ended; with --fail besides, the exit
code is then 1 if there are any: fit for a daily check.`,
		Args: noArgs,
	}
	load := lenientFlag(cmd)
	var f certificatesFlags
	cmd.Flags().StringVar(&f.within, "within", "", "only those that end within this `TIME`, as in 30d or 12h, or have ended")
	cmd.Flags().StringSliceVar(&f.kinds, "kind", nil, "only these `KINDS`: server, registered, CA, balancer, upstream, key-manager")
	cmd.Flags().BoolVar(&f.fail, "fail", false, "end with exit code 1 if --within finds any")
	asJSON := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		wantJSON, err := asJSON()
		if err != nil {
			return err
		}
		now := time.Now()
		wanted, err := f.read(now)
		if err != nil {
			return usage(err)
		}
		cfg, err := load()
		if err != nil {
			return err
		}
		a, err := control.Survey(cmd.Context(), &cfg.Spec)
		if err != nil {
			return usage(err)
		}
		defer a.Close()
		tellFenced(cmd.ErrOrStderr(), a.Spec.Units)
		tellMissing(cmd.ErrOrStderr(), a, now)
		list := a.Certificates(now, a.Registrations())
		all := len(list)
		list = slices.DeleteFunc(list, func(c control.Certificate) bool { return !wanted(c) })
		out := bufio.NewWriter(cmd.OutOrStdout())
		if wantJSON {
			err = printCertificatesJSON(out, list)
		} else {
			printCertificates(out, list, folderOf(cfg.Place.File), now)
			fmt.Fprintln(out, f.total(list, all, now))
		}
		if err = errors.Join(err, out.Flush()); err == nil && f.fail && len(list) > 0 {
			return errQuiet
		}
		return err
	}
	return cmd
}

// certificatesFlags are what of the list is wanted.
type certificatesFlags struct {
	within string
	kinds  []string
	fail   bool
}

// read returns which certificates are wanted.
func (f certificatesFlags) read(now time.Time) (wanted func(control.Certificate) bool, err error) {
	kinds := map[string]bool{}
	for _, word := range f.kinds {
		known := false
		for _, k := range certificateKinds {
			if strings.EqualFold(k.word, word) {
				kinds[k.kind], known = true, true
			}
		}
		if !known {
			return nil, fmt.Errorf("--kind %q is none of server, registered, CA, balancer, upstream, key-manager", word)
		}
	}
	if f.within == "" {
		if f.fail {
			return nil, errors.New("--fail needs --within, as in --within 30d: every certificate ends some day")
		}
		return func(c control.Certificate) bool { return len(kinds) == 0 || kinds[c.Kind] }, nil
	}
	span, err := parseDays(f.within)
	if err != nil {
		return nil, fmt.Errorf("--within %w", err)
	}
	horizon := now.Add(span)
	return func(c control.Certificate) bool {
		return (len(kinds) == 0 || kinds[c.Kind]) && !c.NotAfter.After(horizon)
	}, nil
}

// parseDays reads a time that may count in days: 30d, 36h.
func parseDays(text string) (time.Duration, error) {
	const most = 36500 // days
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 32); err == nil && n <= most {
			return time.Duration(n) * 24 * time.Hour, nil
		}
	} else if d, err := time.ParseDuration(text); err == nil && d >= 0 && d <= most*24*time.Hour {
		return d, nil
	}
	return 0, fmt.Errorf("%q is no time as in 30d or 12h", text)
}

// tellMissing tells of what can't be in the list.
func tellMissing(out io.Writer, a *control.Assembly, now time.Time) {
	for _, s := range a.Servers(now) {
		if len(s.Leafs) > 0 {
			continue
		}
		for _, line := range s.Lines(now) {
			fmt.Fprintln(out, "note:", line)
		}
	}
	if n := a.Unusable(); n > 0 {
		fmt.Fprintf(out, "note: the store has registrations that can't be admitted as they stand, and are not listed: %d; sallyport cert list names them\n", n)
	}
}

// total says how many certificates there are.
func (f certificatesFlags) total(list []control.Certificate, all int, now time.Time) string {
	text := count(len(list), "certificate")
	if len(list) < all {
		text = fmt.Sprintf("%d of %s", len(list), count(all, "certificate"))
	}
	ended := 0
	for ; ended < len(list) && !list[ended].NotAfter.After(now); ended++ { // they are in front
	}
	if ended > 0 {
		text += fmt.Sprintf("; ended: %d", ended)
	}
	return "\n" + text
}

// folderOf is the folder of the configuration, to which files are told relative.
func folderOf(file string) string {
	path, err := filepath.Abs(file)
	if err != nil {
		return ""
	}
	return filepath.Dir(path) + string(filepath.Separator)
}

// printCertificates prints a table. A list may have a million rows, so that they are printed one by one, after a look at
// how wide their columns are.
func printCertificates(out io.Writer, list []control.Certificate, folder string, now time.Time) {
	rows := func(yield func(row []string)) {
		yield([]string{"KIND", "NAME", "ENDS", "", "RENEWS", "FROM"})
		for _, c := range list {
			yield(rowOfCertificate(c, folder, now))
		}
	}
	var widths [6]int
	rows(func(row []string) {
		for i := range widths {
			widths[i] = max(widths[i], utf8.RuneCountInString(row[i]))
		}
	})
	var line []byte
	rows(func(row []string) {
		line = line[:0]
		for i, cell := range row {
			line = append(line, cell...)
			if i < len(widths) && i < len(row)-1 {
				line = append(line, strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+2)...)
			}
		}
		_, _ = out.Write(append(line, '\n')) // out remembers
	})
}

func rowOfCertificate(c control.Certificate, folder string, now time.Time) []string {
	renewed := "by hand"
	if !c.Renews.IsZero() {
		renewed = c.Renews.UTC().Format(time.DateOnly)
	}
	when := control.Distance(c.NotAfter, now)
	if !c.NotAfter.After(now) {
		when = "ENDED " + when
	}
	from := printable.Text(strings.TrimPrefix(c.From, folder))
	row := []string{wordOfKind(c.Kind), c.Label(), c.NotAfter.UTC().Format(time.DateOnly), when, renewed, from}
	if c.Note != "" {
		row = append(row, printable.Text(c.Note))
	}
	return row
}

// A certificateRow is a certificate's JSON form.
type certificateRow struct {
	Kind     string     `json:"kind"`
	For      string     `json:"for,omitempty"`
	Subject  string     `json:"subject,omitempty"`
	NotAfter time.Time  `json:"notAfter"`
	Renews   *time.Time `json:"renews,omitempty"`
	From     string     `json:"from"`
	Note     string     `json:"note,omitempty"`
}

// printCertificatesJSON prints the list, one certificate after the other.
func printCertificatesJSON(out io.Writer, list []control.Certificate) error {
	if len(list) == 0 {
		_, err := io.WriteString(out, "[]\n")
		return err
	}
	for i, c := range list {
		row := certificateRow{Kind: wordOfKind(c.Kind), For: c.For, Subject: c.Subject, NotAfter: c.NotAfter.UTC(), From: c.From, Note: c.Note}
		if renews := c.Renews.UTC(); !c.Renews.IsZero() {
			row.Renews = &renews
		}
		text, err := json.MarshalIndent(row, "  ", "  ")
		if err != nil {
			return err
		}
		before := ",\n  "
		if i == 0 {
			before = "[\n  "
		}
		if _, err := io.WriteString(out, before+string(text)); err != nil {
			return err
		}
	}
	_, err := io.WriteString(out, "\n]\n")
	return err
}
