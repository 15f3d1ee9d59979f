package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"sallyport/certstore"
	"sallyport/cmd/sallyport/internal/config"
	"sallyport/internal/printable"
)

func storeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "store",
		Short: "Copy registrations between stores, and print the tables of WSO2",
		Args:  noSuchCommand,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(storeCopy(), storeSchema())
	return cmd
}

func storeSchema() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "schema --dialect DIALECT",
		Short: "Print the statements that make WSO2's tables of certificates in a new database",
		Long: `Print the statements that make the two tables in which WSO2 API Manager keeps client
certificates, as today's version has them. A database that holds just these is read as
WSO2's: sallyport makes the tables of its own stores by itself.`,
		Args: noArgs,
	}
	dialect := cmd.Flags().String("dialect", "", "`DIALECT`: mysql, mysql-ndb, postgres, mssql, oracle, oracle-rac, db2 or h2")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *dialect == "" {
			return usage(errors.New("--dialect DIALECT is needed"))
		}
		schema, err := certstore.WSO2Schema(*dialect)
		if err != nil {
			return usage(fmt.Errorf("--%w", err))
		}
		_, err = io.WriteString(cmd.OutOrStdout(), schema)
		return err
	}
	return cmd
}

func storeCopy() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "copy FROM TO",
		Short: "Copy all registrations from one store to another",
		Long: `Copy all registrations from one store to another, all of them or, if one contradicts a
registration that is there, none. The deny list comes along, too. What the gateways of a cluster keep in a store, as
certificates from ACME, comes along, except what TO keeps by the same name. FROM and TO
are each the URL of a store without a password, or the sallyport.yaml that names the
store. FROM is not changed.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 2 {
				return usage(fmt.Errorf("%s takes two stores, FROM and TO, and got %d: see %s --help", cmd.CommandPath(), len(args), cmd.CommandPath()))
			}
			return nil
		},
	}
	asJSON := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		wantJSON, err := asJSON()
		if err != nil {
			return err
		}
		done, err := copyStore(cmd.Context(), args[0], args[1])
		if err != nil {
			return err
		}
		if wantJSON {
			return printJSON(cmd.OutOrStdout(), reportOf(done))
		}
		printCopied(cmd.OutOrStdout(), done)
		return nil
	}
	return cmd
}

func copyStore(ctx context.Context, from, to string) (done certstore.Copied, err error) {
	source, err := storeNamed("FROM", from, certstore.Options{ReadOnly: true})
	if err != nil {
		return done, err
	}
	target, err := storeNamed("TO", to, certstore.Options{})
	if err != nil {
		return done, err
	}
	stores := make([]*certstore.Store, 0, 2)
	defer func() {
		for _, s := range stores {
			err = errors.Join(err, s.Close())
		}
	}()
	for _, open := range []func(context.Context) (*certstore.Store, error){source, target} {
		s, err := open(ctx)
		if err != nil {
			return done, err
		}
		stores = append(stores, s)
	}
	return certstore.Copy(ctx, stores[0], stores[1])
}

// storeNamed returns how to open the store that an argument names, by its URL or by a configuration.
func storeNamed(argument, text string, options certstore.Options) (open func(context.Context) (*certstore.Store, error), err error) {
	source, wrong := certstore.Source{URL: text}, func(err error) error { return usage(fmt.Errorf("%s: %w", argument, err)) }
	bad := func(err error) error { return fmt.Errorf("%s: %w", argument, err) }
	url, err := certstore.ParseURL(text)
	switch {
	case err == nil && url.Password() != "":
		return nil, wrong(errors.New("others can see the arguments of a command: name a sallyport.yaml that has the URL and the password"))
	case err != nil && (strings.Contains(text, "://") || strings.HasPrefix(text, "sqlite:")):
		return nil, wrong(err)
	case err != nil:
		cfg, err := config.Load(text)
		if err != nil {
			return nil, usage(err)
		}
		source, bad = cfg.Store.Value, func(err error) error { return badStore(cfg, err) }
		if url, err = certstore.ParseURL(source.URL); err != nil {
			return nil, bad(err)
		}
	}
	if url.InMemory() {
		return nil, wrong(errors.New("a store in memory holds nothing, and forgets: name another"))
	}
	return func(ctx context.Context) (*certstore.Store, error) {
		s, err := source.Open(ctx, options)
		if err != nil {
			return nil, bad(err)
		}
		return s, nil
	}, nil
}

// A copyReport is what a copy did, as JSON.
type copyReport struct {
	Copied        int      `json:"copied"`
	AlreadyThere  int      `json:"alreadyThere"`
	CopiedValues  int      `json:"copiedValues"`
	CopiedDenials int      `json:"copiedDenials"`
	LeftOut       leftOver `json:"leftOut"`
}

type leftOver struct {
	Problems     []string       `json:"problems"`
	Removed      int            `json:"removed"`
	Revisions    int            `json:"revisions"`
	OtherTenants map[string]int `json:"otherTenants"`
	Columns      []string       `json:"columns"`
	Values       []string       `json:"values"`
}

func reportOf(done certstore.Copied) copyReport {
	left := leftOver{
		Problems: []string{}, Removed: done.LeftOut.Tombstones, Revisions: done.LeftOut.Revisions,
		OtherTenants: map[string]int{}, Columns: append([]string{}, done.LeftOut.Columns...),
		Values: append([]string{}, done.LeftOut.Values...),
	}
	for _, p := range done.LeftOut.Problems {
		left.Problems = append(left.Problems, p.String())
	}
	for tenant, n := range done.LeftOut.OtherTenants {
		left.OtherTenants[strconv.Itoa(tenant)] = n
	}
	return copyReport{done.Added, done.Present, done.Values, done.Denials, left}
}

func printCopied(out io.Writer, done certstore.Copied) {
	fmt.Fprintf(out, "copied: %s", count(done.Added, "registration"))
	if done.Values > 0 {
		fmt.Fprintf(out, ", %s", count(done.Values, "value"))
	}
	if done.Denials > 0 {
		fmt.Fprintf(out, ", %s", count(done.Denials, "denial"))
	}
	if done.Present > 0 {
		fmt.Fprintf(out, "; already there: %d", done.Present)
	}
	fmt.Fprintln(out)
	left := done.LeftOut
	for _, p := range left.Problems {
		fmt.Fprintf(out, "left out: %s\n", p)
	}
	if left.Tombstones > 0 {
		fmt.Fprintf(out, "left out: what was removed: %d\n", left.Tombstones)
	}
	if left.Revisions > 0 {
		fmt.Fprintf(out, "left out: copies for revisions of APIs: %d\n", left.Revisions)
	}
	for _, tenant := range slices.Sorted(maps.Keys(left.OtherTenants)) {
		fmt.Fprintf(out, "left out: registrations of tenant %d: %d\n", tenant, left.OtherTenants[tenant])
	}
	for _, column := range left.Columns {
		fmt.Fprintf(out, "left out: the column %s\n", printable.Text(column))
	}
	for _, name := range left.Values {
		fmt.Fprintf(out, "left out: the value %s: TO has another one\n", printable.Quote(name))
	}
}
