package main

import (
	"context"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"sallyport/certstore"
	"sallyport/cmd/sallyport/internal/config"
	"sallyport/internal/printable"
	"sallyport/policy/certrule"
)

func certList() *cobra.Command {
	cmd := &cobra.Command{
		Use:        "list [--api NAME:VERSION]",
		SuggestFor: []string{"ls"},
		Short:      "List the registered certificates and when they expire",
		Args:       noArgs,
	}
	load := soundFlag(cmd)
	api := cmd.Flags().String("api", "", "only those of the API `NAME:VERSION`")
	asJSON := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		wantJSON, err := asJSON()
		if err != nil {
			return err
		}
		cfg, err := load()
		if err != nil {
			return err
		}
		var only certstore.API
		if cmd.Flags().Changed("api") {
			if only, err = certstore.ParseAPI(*api); err != nil {
				return usage(fmt.Errorf("--api: %w", err))
			}
		}
		all, err := registered(cmd.Context(), cfg)
		if err != nil {
			return err
		}
		if only != (certstore.API{}) {
			if all = all.of(only); len(all.clients)+len(all.problems) == 0 {
				if err := checkAPI(cfg, only); err != nil {
					return err
				}
			}
		}
		for _, p := range all.problems {
			fmt.Fprintf(cmd.ErrOrStderr(), "not admitted: %v: %s\n", p, all.problemAdvice())
		}
		for _, tenant := range slices.Sorted(maps.Keys(all.others)) {
			fmt.Fprintf(cmd.ErrOrStderr(), "note: tenant %d has registrations, which are not served: %d\n", tenant, all.others[tenant])
		}
		if all.noStore {
			fmt.Fprintln(cmd.ErrOrStderr(), "note:", noStore(cfg))
		}
		if wantJSON {
			return printClientsJSON(cmd.OutOrStdout(), all.clients)
		}
		if len(all.clients) == 0 {
			fmt.Fprintln(cmd.OutOrStdout(), "no certificate is registered: "+all.registerAdvice())
			return nil
		}
		printClients(cmd.OutOrStdout(), all.clients, time.Now())
		return nil
	}
	return cmd
}

// registrations are all that the store and the API files hold.
type registrations struct {
	clients  []certstore.Client
	problems []certstore.Problem
	noStore  bool        // it was not made yet
	foreign  bool        // WSO2 owns it
	others   map[int]int // registrations of other tenants, by the tenant's id
}

// registered reads all registrations without changing anything.
func registered(ctx context.Context, cfg *config.Config) (all registrations, err error) {
	if all.clients, err = cfg.FileClients(); err != nil {
		return all, usage(err)
	}
	store, err := cfg.Store.Value.Open(ctx, certstore.Options{ReadOnly: true})
	if errors.Is(err, fs.ErrNotExist) {
		all.noStore = true
		return all, nil
	}
	if err != nil {
		return all, badStore(cfg, err)
	}
	stored, problems, err := store.List(ctx)
	if err == nil {
		all.others, err = store.OtherTenants(ctx)
	}
	all.foreign = store.Foreign()
	if err = errors.Join(err, store.Close()); err != nil {
		return all, badStore(cfg, err)
	}
	all.clients, all.problems = append(all.clients, stored...), problems
	return all, nil
}

// of returns those for one API.
func (r registrations) of(api certstore.API) registrations {
	r.clients = slices.DeleteFunc(r.clients, func(c certstore.Client) bool { return c.API != api })
	r.problems = slices.DeleteFunc(r.problems, func(p certstore.Problem) bool { return p.API != api })
	return r
}

// problemAdvice is for a registration that can't be admitted as it stands in the store.
func (r registrations) problemAdvice() string {
	if r.foreign {
		return "mend it in WSO2, whose database this is"
	}
	return "let sallyport cert remove end it, or sallyport cert update replace what is wrong"
}

// registerAdvice says how to register the first certificate.
func (r registrations) registerAdvice() string {
	if r.foreign {
		return "it is done in WSO2, whose database this is"
	}
	return "sallyport cert add registers one"
}

// noStore says that the store is not there.
func noStore(cfg *config.Config) string {
	if storeFile(cfg) == "" {
		return fmt.Sprintf("%s names the store %s, and it has no tables yet: sallyport cert add makes them",
			cfg.Store.Place, cfg.Store.Value.URL)
	}
	return fmt.Sprintf("%s names the store %s, and it isn't there: sallyport cert add makes it",
		cfg.Store.Place, storeFile(cfg))
}

func certShow() *cobra.Command {
	var f certFlags
	cmd := &cobra.Command{
		Use:        "show --api NAME:VERSION --alias ALIAS",
		SuggestFor: []string{"get", "view", "describe"},
		Short:      "Show a registration",
		Args:       noArgs,
	}
	f.add(cmd, soundFlag)
	asJSON := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		wantJSON, err := asJSON()
		if err != nil {
			return err
		}
		client, err := f.one(cmd.Context())
		if err != nil {
			return err
		}
		if wantJSON {
			return printJSON(cmd.OutOrStdout(), rowOf(client))
		}
		c, w := client.Certificate, tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
		fmt.Fprintf(w, "api\t%s\nalias\t%s\nkey type\t%s\ntier\t%s\nscopes\t%s\n", client.API, printable.Text(client.Alias), client.KeyType, client.Tier, printable.Text(strings.Join(client.Scopes, " ")))
		if client.Match != nil {
			fmt.Fprintf(w, "match\t%s\n", printable.Text(client.Match.String()))
		}
		fmt.Fprintf(w, "subject\t%q\nissuer\t%q\nserial\t%s\n", c.Subject.String(), c.Issuer.String(), c.SerialNumber)
		fmt.Fprintf(w, "valid\t%s to %s (%s)\n", c.NotBefore.UTC().Format(time.RFC3339), c.NotAfter.UTC().Format(time.RFC3339), expiry(c.NotAfter, time.Now()))
		fmt.Fprintf(w, "SHA-256\t%s\nfrom\t%s\n", hex.EncodeToString(client.Fingerprint[:]), client.Source)
		return w.Flush()
	}
	return cmd
}

func certExport() *cobra.Command {
	var f certFlags
	cmd := &cobra.Command{
		Use:   "export --api NAME:VERSION --alias ALIAS",
		Short: "Print a registered certificate as PEM",
		Args:  noArgs,
	}
	f.add(cmd, soundFlag)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		client, err := f.one(cmd.Context())
		if err != nil {
			return err
		}
		return pem.Encode(cmd.OutOrStdout(), &pem.Block{Type: "CERTIFICATE", Bytes: client.Certificate.Raw})
	}
	return cmd
}

// one finds the registration that the flags name.
func (f *certFlags) one(ctx context.Context) (certstore.Client, error) {
	cfg, api, keyType, err := f.read()
	if err != nil {
		return certstore.Client{}, err
	}
	all, err := registered(ctx, cfg)
	if err != nil {
		return certstore.Client{}, err
	}
	var found []certstore.Client
	for _, c := range all.clients {
		if c.API == api && c.Alias == f.alias && (keyType == "" || c.KeyType == keyType) {
			found = append(found, c)
		}
	}
	switch len(found) {
	case 0:
		return certstore.Client{}, f.notThere(cfg, all, api, keyType)
	case 1:
		return found[0], nil
	}
	return certstore.Client{}, usage(fmt.Errorf("%s is registered for %s as PRODUCTION and as SANDBOX: name one with --key-type", f.alias, api))
}

// notThere is the error for a registration that isn't there, or isn't as it must be, by those that are.
func (f *certFlags) notThere(
	cfg *config.Config, all registrations, api certstore.API, keyType certstore.KeyType,
) error {
	all = all.of(api)
	for _, p := range all.problems {
		if p.Alias == f.alias && (keyType == "" || p.KeyType == keyType) {
			return fmt.Errorf("%v: %s", p, all.problemAdvice())
		}
	}
	meant := ""
	for _, c := range all.clients {
		switch {
		case c.Alias == f.alias:
			return fmt.Errorf("%s is registered for %s as %s and not as %s", f.alias, api, c.KeyType, keyType)
		case strings.EqualFold(c.Alias, f.alias):
			meant = fmt.Sprintf(" (did you mean %s?)", c.Alias)
		}
	}
	if len(all.clients)+len(all.problems) == 0 {
		if err := checkAPI(cfg, api); err != nil {
			return err
		}
	}
	advice := "sallyport cert list shows those that are"
	if all.noStore {
		advice = noStore(cfg)
	}
	return fmt.Errorf("no certificate %s is registered for %s%s: %s", f.alias, api, meant, advice)
}

func printClients(out io.Writer, clients []certstore.Client, now time.Time) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	head, match := "", func(certstore.Client) string { return "" }
	if slices.ContainsFunc(clients, func(c certstore.Client) bool { return c.Match != nil }) {
		head, match = "\tMATCH", func(c certstore.Client) string { return "\t" + printable.Text(c.Matcher().String()) }
	}
	fmt.Fprintln(w, "API\tALIAS\tKEY TYPE\tTIER\tEXPIRES\t\tSHA-256\tFROM"+head)
	for _, c := range clients {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s…\t%s%s\n", c.API, printable.Text(c.Alias), c.KeyType, c.Tier,
			c.Certificate.NotAfter.UTC().Format(time.DateOnly), expiry(c.Certificate.NotAfter, now), hex.EncodeToString(c.Fingerprint[:8]), c.Source, match(c))
	}
	w.Flush()
}

// expiry returns in days how far away the end is.
func expiry(end, now time.Time) string {
	left := end.Sub(now)
	switch days := int(left.Hours() / 24); {
	case left <= 0:
		return "EXPIRED"
	case days == 0:
		return "today"
	case days == 1:
		return "in 1 day"
	default:
		return fmt.Sprintf("in %d days", days)
	}
}

// A clientRow is a registration's JSON form.
type clientRow struct {
	API         string          `json:"api"`
	Alias       string          `json:"alias"`
	KeyType     string          `json:"keyType"`
	Tier        string          `json:"tier"`
	Scopes      []string        `json:"scopes"`
	Match       *certrule.Match `json:"match,omitempty"` // of a CA that counts for some of its leaves alone
	Subject     string          `json:"subject"`
	Issuer      string          `json:"issuer"`
	Serial      string          `json:"serial"`
	NotBefore   time.Time       `json:"notBefore"`
	NotAfter    time.Time       `json:"notAfter"`
	Fingerprint string          `json:"sha256"`
	From        string          `json:"from"`
}

func rowOf(c certstore.Client) clientRow {
	x := c.Certificate
	var match *certrule.Match
	if c.Match != nil {
		m := c.Match.Match()
		match = &m
	}
	return clientRow{
		Match:       match,
		API:         c.API.String(),
		Alias:       c.Alias,
		KeyType:     string(c.KeyType),
		Tier:        c.Tier,
		Scopes:      append([]string{}, c.Scopes...),
		Subject:     x.Subject.String(),
		Issuer:      x.Issuer.String(),
		Serial:      x.SerialNumber.String(),
		NotBefore:   x.NotBefore.UTC(),
		NotAfter:    x.NotAfter.UTC(),
		Fingerprint: hex.EncodeToString(c.Fingerprint[:]),
		From:        c.Source,
	}
}

func printClientsJSON(out io.Writer, clients []certstore.Client) error {
	rows := []clientRow{}
	for _, c := range clients {
		rows = append(rows, rowOf(c))
	}
	return printJSON(out, rows)
}
