package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"sallyport/certstore"
	"sallyport/cmd/sallyport/internal/config"
	"sallyport/gateway/control"
	"sallyport/internal/printable"
)

func certDeny() *cobra.Command {
	cmd := &cobra.Command{
		Use:        "deny",
		SuggestFor: []string{"revoke", "block", "ban"},
		Short:      "Keep the deny list: certificates that are refused, whatever vouches for them",
		Long: `Keep the deny list: certificates that are refused, whatever vouches for them. It is in the
store, and in force on every gateway of the store within a second, on open connections
too. A certificate is named

  by itself     --fingerprint SHA256, or --certificate FILE
  by its number --serial HEX with --issuer-certificate FILE, or --issuer "CN=…" if the
                gateway knows one issuer of that name; or --certificate FILE --by serial
  by its key    --spki SHA256, or --certificate FILE --by spki: re-issued ones, too

A SHA256 is in hex, with or without colons, or in base64. A serial number is in hex;
decimal:4096 is 1000.`,
		Args: noSuchCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(denyAdd(), denyRemove(), denyList())
	return cmd
}

// denyFlags are how a command names certificates.
type denyFlags struct {
	load  func() (*config.Config, error)
	given func(flag string) bool

	fingerprint, certificate, by, serial, issuer, issuerCertificate, spki string
}

func (f *denyFlags) add(cmd *cobra.Command) {
	f.load = soundFlag(cmd)
	f.given = cmd.Flags().Changed
	flag := func(to *string, name, help string) { cmd.Flags().StringVar(to, name, "", help) }
	flag(&f.fingerprint, "fingerprint", "the certificate's `SHA256`, of its DER")
	flag(&f.certificate, "certificate", "the certificate itself, a `FILE` in PEM or DER")
	flag(&f.by, "by", "with --certificate: by its `fingerprint`, which is the default, serial or spki")
	flag(&f.serial, "serial", "the certificate's serial number in `HEX`, or decimal:NUMBER; with its issuer")
	flag(&f.issuer, "issuer", "the issuer's `NAME`, as in \"CN=Partner CA,O=Example\"")
	flag(&f.issuerCertificate, "issuer-certificate", "the issuer's certificate, a `FILE` in PEM or DER")
	flag(&f.spki, "spki", "the `SHA256` of the certificate's SubjectPublicKeyInfo")
}

// selectors are the flags of which one is given.
var selectors = []string{"fingerprint", "certificate", "serial", "spki"}

// any reports whether certificates are named.
func (f *denyFlags) any() bool {
	return slices.ContainsFunc(append(slices.Clone(selectors), "issuer", "issuer-certificate", "by"), f.given)
}

// check refuses flags that contradict each other.
func (f *denyFlags) check() error {
	var given []string
	for _, s := range selectors {
		if f.given(s) {
			given = append(given, "--"+s)
		}
	}
	switch {
	case len(given) == 0:
		return errors.New("name the certificates by one of --fingerprint, --certificate, --serial and --spki")
	case len(given) > 1:
		return fmt.Errorf("%s are two ways to name certificates: use one", strings.Join(given, " and "))
	case f.given("by") && !f.given("certificate"):
		return errors.New("--by goes with --certificate")
	case !f.given("serial") && (f.given("issuer") || f.given("issuer-certificate")):
		return errors.New("--issuer and --issuer-certificate go with --serial")
	case f.given("serial") && f.given("issuer") == f.given("issuer-certificate"):
		return errors.New("a serial number is one of an issuer: name it by one of --issuer-certificate and --issuer")
	}
	return nil
}

// read returns the denial that the flags name.
func (f *denyFlags) read(ctx context.Context, cfg *config.Config) (d certstore.Denial, err error) {
	if err := f.check(); err != nil {
		return d, usage(err)
	}
	wrong := func(flag string, err error) error {
		if err == nil {
			return nil
		}
		return usage(fmt.Errorf("--%s: %w", flag, err))
	}
	switch {
	case f.given("fingerprint"):
		d.Fingerprint, err = certstore.ParseDigest(f.fingerprint)
		return d, wrong("fingerprint", err)
	case f.given("spki"):
		d.Key, err = certstore.ParseDigest(f.spki)
		return d, wrong("spki", err)
	case f.given("certificate"):
		return f.readCertificate()
	}
	if d.Serial, err = certstore.ParseSerial(f.serial); err != nil {
		return d, wrong("serial", err)
	}
	if f.given("issuer") {
		d.Issuer, err = f.findIssuer(ctx, cfg)
		return d, wrong("issuer", err)
	}
	issuer, err := readCertificate(f.issuerCertificate)
	if err != nil {
		return d, err
	}
	d.Issuer = issuer.RawSubject
	return d, nil
}

func (f *denyFlags) readCertificate() (d certstore.Denial, err error) {
	ways := map[string]bool{"": true, "fingerprint": true, "serial": true, "spki": true}
	if !ways[f.by] {
		return d, usage(fmt.Errorf("--by %q is none of fingerprint, serial, spki", f.by))
	}
	cert, err := readCertificate(f.certificate)
	if err != nil {
		return d, err
	}
	switch f.by {
	case "serial":
		return certstore.DenySerial(cert), nil
	case "spki":
		return certstore.DenyKey(cert), nil
	}
	return certstore.DenyCertificate(cert), nil
}

// findIssuer finds the one issuer that the gateway or the deny list knows by the name. Names are compared byte for byte
// where certificates are judged, and of one text there may be several: then it asks for the issuer's certificate.
func (f *denyFlags) findIssuer(ctx context.Context, cfg *config.Config) ([]byte, error) {
	const ask = "name its certificate by --issuer-certificate FILE"
	a, err := control.Survey(ctx, &cfg.Spec)
	if err != nil {
		return nil, fmt.Errorf("issuers are looked up in the configuration, which has problems: %s, or mend it: %w", ask, err)
	}
	names := a.IssuerNames()
	for _, d := range a.DenyList() {
		if d.Issuer != nil {
			names = append(names, d.Issuer)
		}
	}
	if err := a.Close(); err != nil {
		return nil, err
	}
	slices.SortFunc(names, bytes.Compare)
	names = slices.CompactFunc(names, bytes.Equal)
	names = slices.DeleteFunc(names, func(name []byte) bool { return !certstore.NameIs(name, f.issuer) })
	switch len(names) {
	case 0:
		return nil, fmt.Errorf("%s is the name of no issuer of a registered certificate, and of no entry of a trust store: %s", printable.Quote(f.issuer), ask)
	case 1:
		return names[0], nil
	}
	return nil, fmt.Errorf("%s is the name of several issuers, which differ in how their names are encoded: %s", printable.Quote(f.issuer), ask)
}

func denyAdd() *cobra.Command {
	var f denyFlags
	var comment string
	cmd := &cobra.Command{
		Use:   "add (--fingerprint SHA256 | --certificate FILE | --serial HEX --issuer-certificate FILE | --spki SHA256) [--comment TEXT]",
		Short: "Put certificates on the deny list",
		Args:  noArgs,
	}
	f.add(cmd)
	cmd.Flags().StringVar(&comment, "comment", "", "a `TEXT` that list shows, and the gateway's log")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := f.load()
		if err != nil {
			return err
		}
		d, err := f.read(cmd.Context(), cfg)
		if err != nil {
			return err
		}
		d.Comment = comment
		var added bool
		err = changeDenials(cmd.Context(), cfg, func(s *certstore.Store) (err error) {
			added, err = s.AddDenial(cmd.Context(), d)
			return err
		})
		if err != nil {
			return err
		}
		if !added {
			return tell(cmd, nil, "the deny list names %s already, as %s\n", d.By(), d.ID())
		}
		if err := tell(cmd, nil, "denied %s, as %s\na running gateway refuses it within a second\n", d.By(), d.ID()); err != nil {
			return err
		}
		return tellDenied(cmd, cfg, d)
	}
	return cmd
}

// tellDenied notes which registrations a denial ends.
func tellDenied(cmd *cobra.Command, cfg *config.Config, d certstore.Denial) error {
	all, err := registered(cmd.Context(), cfg)
	if err != nil {
		return nil // the denial is done, whoever is registered
	}
	const most = 10
	n, denials := 0, control.Denials([]certstore.Denial{d})
	for _, c := range all.clients {
		if denials.Find([]*x509.Certificate{c.Certificate}) == nil {
			continue
		}
		if n++; n <= most {
			fmt.Fprintf(cmd.OutOrStdout(), "it names %s of %s (%s)\n", printable.Text(c.Alias), c.API, c.KeyType)
		}
	}
	switch {
	case n > most:
		fmt.Fprintf(cmd.OutOrStdout(), "and %s more\n", count(n-most, "registration"))
	case n == 0:
		fmt.Fprintln(cmd.ErrOrStderr(), "note: no registered certificate is named by it")
	}
	return nil
}

// changeDenials is changeStore for the deny list.
func changeDenials(ctx context.Context, cfg *config.Config, change func(*certstore.Store) error) error {
	if url, err := certstore.ParseURL(cfg.Store.Value.URL); err == nil && url.InMemory() {
		return badStore(cfg, errors.New("it is in memory and would forget the change: name a file, as in sqlite:sallyport.db"))
	}
	return changeStore(ctx, cfg, certstore.Options{}, change)
}

func denyRemove() *cobra.Command {
	var f denyFlags
	cmd := &cobra.Command{
		Use:        "remove (ID | --fingerprint SHA256 | --certificate FILE | --serial HEX --issuer-certificate FILE | --spki SHA256)",
		SuggestFor: []string{"delete", "rm"},
		Short:      "Take certificates off the deny list",
	}
	f.add(cmd)
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) > 1 || len(args) == 1 && f.any() {
			return usage(fmt.Errorf("%s takes one entry, by its ID or by flags: see %s --help", cmd.CommandPath(), cmd.CommandPath()))
		}
		return nil
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		cfg, err := f.load()
		if err != nil {
			return err
		}
		var d certstore.Denial
		if len(args) == 1 {
			d, err = denialOf(cmd.Context(), cfg, args[0])
		} else {
			d, err = f.read(cmd.Context(), cfg)
		}
		if err == nil {
			err = error(certstore.ErrNotDenied)
			if _, missing := os.Stat(storeFile(cfg)); !errors.Is(missing, fs.ErrNotExist) || storeFile(cfg) == "" {
				err = changeDenials(cmd.Context(), cfg, func(s *certstore.Store) error { return s.RemoveDenial(cmd.Context(), d) })
			}
		}
		if errors.Is(err, certstore.ErrNotDenied) {
			err = fmt.Errorf("%w: sallyport cert deny list shows those that it has", err)
		}
		if err != nil {
			return err
		}
		return tell(cmd, nil, "removed %s; a running gateway sees it within a second\n", d.By())
	}
	return cmd
}

// denialOf finds the entry with an ID.
func denialOf(ctx context.Context, cfg *config.Config, id string) (certstore.Denial, error) {
	list, _, err := readDenials(ctx, cfg)
	if err != nil {
		return certstore.Denial{}, err
	}
	for _, d := range list {
		if strings.EqualFold(d.ID(), id) {
			return d, nil
		}
	}
	return certstore.Denial{}, fmt.Errorf("%s: %w", printable.Quote(id), certstore.ErrNotDenied)
}

// readDenials reads the deny list without changing anything. A store that was not made yet has none.
func readDenials(ctx context.Context, cfg *config.Config) (list []certstore.Denial, unreadable []error, err error) {
	store, err := cfg.Store.Value.Open(ctx, certstore.Options{ReadOnly: true})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, badStore(cfg, err)
	}
	list, unreadable, err = store.Denials(ctx)
	if err = errors.Join(err, store.Close()); err != nil {
		return nil, nil, badStore(cfg, err)
	}
	return list, unreadable, nil
}

func denyList() *cobra.Command {
	cmd := &cobra.Command{
		Use:        "list",
		SuggestFor: []string{"ls"},
		Short:      "List what the deny list names",
		Args:       noArgs,
	}
	load := soundFlag(cmd)
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
		list, unreadable, err := readDenials(cmd.Context(), cfg)
		if err != nil {
			return err
		}
		for _, err := range unreadable {
			fmt.Fprintln(cmd.ErrOrStderr(), "not in force:", err)
		}
		switch out := cmd.OutOrStdout(); {
		case wantJSON:
			err = printDenialsJSON(out, list)
		case len(list) == 0:
			_, err = fmt.Fprintln(out, "the deny list names nothing: sallyport cert deny add puts certificates on it")
		default:
			err = printDenials(out, list)
		}
		if err == nil && len(unreadable) > 0 {
			return errQuiet
		}
		return err
	}
	return cmd
}

func printDenials(out io.Writer, list []certstore.Denial) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tSINCE\tNAMES\tCOMMENT")
	for i := range list {
		d := &list[i]
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", d.ID(), d.Since.UTC().Format(time.RFC3339), d.By(), printable.Text(d.Comment))
	}
	return w.Flush()
}

// A denialLine is an entry of the deny list, as JSON.
type denialLine struct {
	ID          string    `json:"id"`
	By          string    `json:"by"` // fingerprint, serial or spki
	Fingerprint string    `json:"sha256,omitempty"`
	Serial      string    `json:"serial,omitempty"` // in hex
	Issuer      string    `json:"issuer,omitempty"`
	IssuerDER   []byte    `json:"issuerDER,omitempty"`
	SPKI        string    `json:"spkiSHA256,omitempty"`
	Comment     string    `json:"comment"`
	Since       time.Time `json:"since"`
}

func printDenialsJSON(out io.Writer, list []certstore.Denial) error {
	lines := make([]denialLine, len(list))
	for i := range list {
		d := &list[i]
		line := denialLine{ID: d.ID(), By: d.Kind(), Comment: d.Comment, Since: d.Since.UTC()}
		switch d.Kind() {
		case "serial":
			line.Serial, line.Issuer, line.IssuerDER = hex.EncodeToString(d.Serial), certstore.NameText(d.Issuer), d.Issuer
			if line.Serial == "" {
				line.Serial = "00"
			}
		case "spki":
			line.SPKI = hex.EncodeToString(d.Key[:])
		default:
			line.Fingerprint = hex.EncodeToString(d.Fingerprint[:])
		}
		lines[i] = line
	}
	return printJSON(out, lines)
}
