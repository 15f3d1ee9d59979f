package main

import (
	"context"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sallyport/certstore"
	"sallyport/cmd/sallyport/internal/config"
	"sallyport/gateway/control"
	"sallyport/internal/printable"
	"sallyport/internal/regularfile"
	"sallyport/listenerprofiles/trust"
	"sallyport/policy/certrule"
)

func certCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cert",
		Short: "Manage the client certificates that are registered for APIs",
		Long: `Manage the client certificates that are registered for APIs. The commands work beside a
running gateway, which sees a change within mutualSSL.certificateReloadPeriod. Certificates
that API files register are listed too, and changed there.`,
		Args: noSuchCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(certAdd(), certList(), certShow(), certUpdate(), certRemove(), certExport(), certDeny())
	return cmd
}

// A certFlags is how a command names one registration.
type certFlags struct {
	load    func() (*config.Config, error)
	given   func(flag string) bool // reports whether a flag was given, be it as ""
	api     string
	alias   string
	keyType string
}

// add adds the flags, and -c, which is loaded by load.
func (f *certFlags) add(cmd *cobra.Command, load func(*cobra.Command) func() (*config.Config, error)) {
	f.load = load(cmd)
	f.given = cmd.Flags().Changed
	cmd.Flags().StringVar(&f.api, "api", "", "the API, `NAME:VERSION`")
	cmd.Flags().StringVar(&f.alias, "alias", "", "the certificate's `ALIAS`, unique for the API and key type")
	cmd.Flags().StringVar(&f.keyType, "key-type", "", "`PRODUCTION` or SANDBOX")
}

// read checks the flags against the configuration.
func (f *certFlags) read() (*config.Config, certstore.API, certstore.KeyType, error) {
	cfg, err := f.load()
	if err != nil {
		return nil, certstore.API{}, "", err
	}
	if f.api == "" || f.alias == "" {
		return nil, certstore.API{}, "", usage(errors.New("--api NAME:VERSION and --alias ALIAS are needed"))
	}
	api, err := certstore.ParseAPI(f.api)
	if err != nil {
		return nil, api, "", usage(fmt.Errorf("--api: %w", err))
	}
	var keyType certstore.KeyType
	if f.given("key-type") {
		if keyType, err = certstore.ParseKeyType(f.keyType); err != nil {
			return nil, api, "", usage(fmt.Errorf("--key-type: %w", err))
		}
	}
	return cfg, api, keyType, nil
}

// changeStore opens the configuration's store for a change that lasts, makes it, and closes the store.
func changeStore(ctx context.Context, cfg *config.Config, options certstore.Options, change func(*certstore.Store) error) error {
	if url, err := certstore.ParseURL(cfg.Store.Value.URL); err == nil && url.InMemory() {
		return badStore(cfg, errors.New("it is in memory and would forget the change: name a file, as in sqlite:sallyport.db, or register the certificate in an API file"))
	}
	store, err := cfg.Store.Value.Open(ctx, options)
	if err != nil {
		return badStore(cfg, err)
	}
	return storeError(errors.Join(change(store), store.Close()))
}

// change is changeStore for the registration that the flags name: one that isn't there is an error that says what is,
// and makes no store.
func (f *certFlags) change(
	ctx context.Context, cfg *config.Config, api certstore.API, keyType certstore.KeyType, options certstore.Options,
	change func(*certstore.Store) error,
) error {
	err := error(certstore.ErrNotFound)
	if _, missing := os.Stat(storeFile(cfg)); !errors.Is(missing, fs.ErrNotExist) || storeFile(cfg) == "" {
		err = changeStore(ctx, cfg, options, change)
	}
	if !errors.Is(err, certstore.ErrNotFound) {
		return err
	}
	all, err := registered(ctx, cfg)
	if err != nil {
		return err
	}
	return f.notThere(cfg, all, api, keyType)
}

// storeFile is the store's file, "" if it has none.
func storeFile(cfg *config.Config) string {
	url, err := certstore.ParseURL(cfg.Store.Value.URL)
	if err != nil {
		return ""
	}
	return url.File()
}

// badStore returns the error for a store that does not open or can't be read, with the place where it is configured.
func badStore(cfg *config.Config, err error) error {
	var list control.Problems
	list.Add(cfg.Store.Place, fmt.Errorf("store: %w", err))
	return list
}

// storeError marks what can't be asked of any store as wrong usage. That an alias is taken, or isn't there, is the
// answer to a good question: the exit code tells scripts the two apart.
func storeError(err error) error {
	for answer, advice := range map[error]string{
		certstore.ErrAliasTaken: "take another alias, or let sallyport cert update give this one the certificate",
		certstore.ErrRegistered: "an API has each certificate once: let sallyport cert update change its tier or scopes",
	} {
		if errors.Is(err, answer) {
			return fmt.Errorf("%w: %s", err, advice)
		}
	}
	for _, mendable := range []error{certstore.ErrInvalid, certstore.ErrExpired} {
		if errors.Is(err, mendable) {
			return usage(err)
		}
	}
	return err
}

func certAdd() *cobra.Command {
	var f certFlags
	var tier string
	var scopes, matches []string
	var force bool
	cmd := &cobra.Command{
		Use:        "add --api NAME:VERSION --alias ALIAS --tier TIER FILE",
		SuggestFor: []string{"import", "register", "create"},
		Short:      "Register a client certificate (PEM or DER) for an API",
	}
	f.add(cmd, configFlag) // which certificates others register must be known in full
	cmd.Flags().StringVar(&tier, "tier", "", "the `TIER` that the certificate is held to")
	cmd.Flags().StringSliceVar(&scopes, "scope", nil, "a `SCOPE` that the certificate has, or \"*\"; may be repeated")
	cmd.Flags().StringArrayVar(&matches, "match", nil, matchHelp)
	cmd.Flags().BoolVar(&force, "force", false, forceHelp)
	cmd.Args = oneFile
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		cfg, api, keyType, err := f.read()
		if err != nil {
			return err
		}
		if tier == "" {
			return usage(errors.New("--tier TIER is needed"))
		}
		if keyType == "" {
			keyType = certstore.Production
		}
		certificate, err := readCertificate(args[0])
		if err != nil {
			return err
		}
		client := certstore.Client{
			API: api, Alias: f.alias, KeyType: keyType, Tier: tier, Scopes: scopes,
			Certificate: certificate, Fingerprint: certstore.Fingerprint(certificate), Source: args[0],
		}
		if f.given("match") {
			if client.Match, err = parseMatch(matches); err != nil {
				return err
			}
		}
		if err := checkClient(cfg, client); err != nil {
			return err
		}
		// A CA with a match is registered for what it issues, whether or not it is good for calls of its own.
		problem, err := judge(cmd.Context(), cfg, client, args[0], force || client.Match != nil)
		if err != nil {
			return err
		}
		err = changeStore(cmd.Context(), cfg, certstore.Options{AnyTime: force}, func(s *certstore.Store) error {
			return s.Add(cmd.Context(), client)
		})
		if err != nil {
			return err
		}
		return tell(cmd, problem, "registered %s for %s, tier %s, %s\nSHA-256 %s, valid until %s\n"+
			"a running gateway sees it within %s\n",
			client.Alias, api, tier, strings.ToLower(string(keyType)),
			hex.EncodeToString(client.Fingerprint[:]), certificate.NotAfter.UTC().Format(time.DateOnly), cfg.Period)
	}
	return cmd
}

const matchHelp = "`KEY=VALUE` that a leaf of this CA has to hold, as in dns=*.partner.test; may be repeated"

// parseMatch reads the values of --match. One alone that is empty is a match that admits every leaf.
func parseMatch(values []string) (*certrule.Matcher, error) {
	var match certrule.Match
	if len(values) == 1 && values[0] == "" {
		values = nil
	}
	for _, v := range values {
		key, entry, ok := strings.Cut(v, "=")
		if !ok {
			return nil, usage(fmt.Errorf("--match %s is not KEY=VALUE: KEY is one of %s", printable.Quote(v), strings.Join(certrule.Keys(), ", ")))
		}
		if err := match.Add(key, entry); err != nil {
			return nil, usage(fmt.Errorf("--match: %w", err))
		}
	}
	compiled, err := match.Compile()
	if err != nil {
		return nil, usage(fmt.Errorf("--match: %w", err))
	}
	return compiled, nil
}

// checkClient checks a registration against the configuration: its API and tier exist, and no API file registers it.
func checkClient(cfg *config.Config, client certstore.Client) error {
	if err := checkAPI(cfg, client.API); err != nil {
		return err
	}
	if err := checkTier(cfg, client.Tier); err != nil {
		return err
	}
	files, err := cfg.FileClients()
	if err != nil {
		return usage(err)
	}
	if _, err := certstore.NewIndex(append(files, client)); err != nil {
		return usage(err)
	}
	return nil
}

func checkAPI(cfg *config.Config, api certstore.API) error {
	names := make([]string, len(cfg.APIs))
	for i := range cfg.APIs {
		if cfg.APIs[i].API == api {
			return nil
		}
		names[i] = cfg.APIs[i].API.String()
	}
	if elsewhere(cfg, api) != nil {
		return nil // others of the cluster serve it
	}
	return usage(fmt.Errorf("no API %q in %s; there are: %s", api, cfg.Place.File, strings.Join(names, ", ")))
}

// elsewhere returns an API that gateways with other labels serve, nil for every other one.
func elsewhere(cfg *config.Config, api certstore.API) *control.API {
	for i := range cfg.LeftOut {
		if cfg.LeftOut[i].API == api {
			return &cfg.LeftOut[i]
		}
	}
	return nil
}

// checkFiles refuses what would make the store contradict the API files: a change of a registration that is written in
// one, and a certificate that one registers for the API already.
func checkFiles(cfg *config.Config, api certstore.API, keyType certstore.KeyType, alias string, certificate *x509.Certificate) error {
	files, err := cfg.FileClients()
	if err != nil {
		return usage(err)
	}
	for _, c := range files {
		switch {
		case c.API != api:
		case c.Alias == alias && (keyType == "" || c.KeyType == keyType):
			return usage(fmt.Errorf("%s of %s is registered in a file: change it there, at %s", alias, api, c.Source))
		case certificate != nil && certificate.Equal(c.Certificate):
			return usage(fmt.Errorf("the certificate is registered for %s already, as %s at %s", api, c.Alias, c.Source))
		}
	}
	return nil
}

func checkTier(cfg *config.Config, tier string) error {
	if _, ok := cfg.Tiers.Find(tier); !ok {
		return usage(fmt.Errorf("no tier %q: use one of %s, or define it in %s under tiers", tier, strings.Join(cfg.Tiers.Names(), ", "), cfg.Place.File))
	}
	return nil
}

// maxArgument bounds a file that is named on the command line, in bytes.
const maxArgument = 1 << 20

func readArgument(file string) ([]byte, error) {
	data, err := regularfile.ReadArgument(file, maxArgument)
	if err != nil {
		return nil, usage(fmt.Errorf("%s: %w", file, err))
	}
	return data, nil
}

func readCertificate(file string) (*x509.Certificate, error) {
	data, err := readArgument(file)
	if err != nil {
		return nil, err
	}
	return parseCertificate(file, data)
}

func parseCertificate(file string, data []byte) (*x509.Certificate, error) {
	certificate, err := certstore.ParseCertificate(data)
	if err != nil {
		if what := whatItIs(file, data); what != "" {
			err = fmt.Errorf("%w; %s", err, what)
		}
		return nil, usage(fmt.Errorf("%s: %w", file, err))
	}
	return certificate, nil
}

const forceHelp = "register a certificate that can never be good, too"

// judge asks whether calls with the certificate will be good, as the gateway judges them. The problem is why they will
// not be, and does not keep it from being registered; one that neither time nor another trust store mends is an error,
// unless force is set.
func judge(ctx context.Context, cfg *config.Config, client certstore.Client, file string, force bool) (problem, err error) {
	now := time.Now()
	spec := cfg.Spec
	spec.Store.Value = certstore.Source{} // no matter who else is registered: a store that is away is waited for once
	if a, broken := control.Build(ctx, &spec); broken == nil {
		problem = a.Examine(client, now)
		if err := a.Close(); err != nil {
			return nil, err
		}
	} else {
		problem = cfg.ExamineAlone(client.Certificate, now)
	}
	if !force && trust.CauseOf(problem).Never() {
		return nil, usage(fmt.Errorf("%s: %w, so that its calls are always refused: have a new one made, or register this one all the same with --force", file, problem))
	}
	return problem, nil
}

// tell prints what was changed and, if there is a problem, why calls will not be good.
func tell(cmd *cobra.Command, problem error, format string, args ...any) error {
	if _, err := fmt.Fprintf(cmd.OutOrStdout(), format, args...); err != nil {
		return fmt.Errorf("it is done, and could not be told: %w", err)
	}
	if problem == nil {
		return nil
	}
	advice := ""
	if trust.CauseOf(problem) == trust.Untrusted {
		advice = ": put its CA, or the certificate itself, into the listener's trust store"
	}
	_, err := fmt.Fprintf(cmd.ErrOrStderr(), "note: it admits nobody as things are: %v%s\n", problem, advice)
	return err
}

func oneFile(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return usage(fmt.Errorf("%s takes one certificate file, and got %d: see %s --help", cmd.CommandPath(), len(args), cmd.CommandPath()))
	}
	return nil
}

func certUpdate() *cobra.Command {
	var f certFlags
	var tier string
	var scopes, matches []string
	var force bool
	cmd := &cobra.Command{
		Use:        "update --api NAME:VERSION --alias ALIAS [--tier TIER] [--scope SCOPE]... [--match KEY=VALUE]... [FILE]",
		SuggestFor: []string{"change", "set", "replace"},
		Short:      "Replace a registration's certificate, tier, scopes or match",
	}
	f.add(cmd, configFlag) // which certificates others register must be known in full
	cmd.Flags().StringVar(&tier, "tier", "", "the new `TIER`")
	cmd.Flags().StringSliceVar(&scopes, "scope", nil, "the new `SCOPE`s; \"\" for none")
	cmd.Flags().StringArrayVar(&matches, "match", nil, matchHelp+"; \"\" for every leaf")
	cmd.Flags().BoolVar(&force, "force", false, forceHelp)
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 && !f.given("tier") && !f.given("scope") && !f.given("match") {
			return usage(errors.New("nothing to update: name --tier, --scope, --match or a certificate file"))
		}
		if len(args) > 1 {
			return oneFile(cmd, args)
		}
		return nil
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		cfg, api, keyType, err := f.read()
		if err != nil {
			return err
		}
		if f.given("tier") {
			if err := checkTier(cfg, tier); err != nil {
				return err
			}
		}
		var certificate *x509.Certificate
		if len(args) == 1 {
			if certificate, err = readCertificate(args[0]); err != nil {
				return err
			}
		}
		if err := checkFiles(cfg, api, keyType, f.alias, certificate); err != nil {
			return err
		}
		var match *certrule.Matcher
		if f.given("match") {
			if match, err = parseMatch(matches); err != nil {
				return err
			}
		}
		var problem error
		if certificate != nil {
			client := certstore.Client{API: api, Alias: f.alias, KeyType: keyType, Certificate: certificate}
			if problem, err = judge(cmd.Context(), cfg, client, args[0], force || match != nil); err != nil {
				return err
			}
		}
		var newScopes *[]string
		if f.given("scope") {
			scopes = slices.DeleteFunc(scopes, func(s string) bool { return s == "" })
			newScopes = &scopes
		}
		err = f.change(cmd.Context(), cfg, api, keyType, certstore.Options{AnyTime: force}, func(s *certstore.Store) error {
			return s.Change(cmd.Context(), api, keyType, f.alias, certstore.Change{Certificate: certificate, Tier: tier, Scopes: newScopes, Match: match})
		})
		if err != nil {
			return err
		}
		return tell(cmd, problem, "updated %s of %s; a running gateway sees it within %s\n", f.alias, api, cfg.Period)
	}
	return cmd
}

func certRemove() *cobra.Command {
	var f certFlags
	cmd := &cobra.Command{
		Use:        "remove --api NAME:VERSION --alias ALIAS",
		SuggestFor: []string{"delete", "rm", "revoke"},
		Short:      "End a registration",
		Args:       noArgs,
	}
	f.add(cmd, soundFlag)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, api, keyType, err := f.read()
		if err != nil {
			return err
		}
		if err := checkFiles(cfg, api, keyType, f.alias, nil); err != nil {
			return err
		}
		err = f.change(cmd.Context(), cfg, api, keyType, certstore.Options{}, func(s *certstore.Store) error {
			return s.Remove(cmd.Context(), api, keyType, f.alias)
		})
		if err != nil {
			return err
		}
		return tell(cmd, nil, "removed %s of %s; a running gateway refuses it within %s\n", f.alias, api, cfg.Period)
	}
	return cmd
}
