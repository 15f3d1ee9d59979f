package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"sallyport/certstore"
	"sallyport/cmd/sallyport/internal/config"
	"sallyport/gateway/control"
	"sallyport/internal/fileset"
)

func configCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Manage the files that the gateways of a cluster share",
		Long: `Manage the files that the gateways of a cluster share: API files, profiles, key stores and
trust stores. The store has versions of them. Gateways with gateway.config in their
sallyport.yaml write the current one to that folder and serve it within a second.`,
		Args: noSuchCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(configPush(), configVersions(), configRollback(), configRekey(), configKey())
	return cmd
}

// takes is for commands with one argument, which may be left out if least is 0.
func takes(least int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if n := len(args); n < least || n > 1 {
			return usage(fmt.Errorf("%s takes one %s, and got %d: see %[1]s --help", cmd.CommandPath(), what, n))
		}
		return nil
	}
}

// nodeFlag adds -c to a command and returns how to load what it names, as far as the files in the store go.
func nodeFlag(cmd *cobra.Command) func() (pusher, error) {
	find := configFileFlag(cmd)
	return func() (pusher, error) {
		file, err := find()
		if err != nil {
			return pusher{}, err
		}
		node, err := config.LoadNode(file)
		if err != nil {
			return pusher{}, usage(err)
		}
		if node.Cluster.Folder == "" {
			return pusher{}, usage(fmt.Errorf("%s takes no files from the store: "+
				"say where they belong, as in gateway: {config: {folder: cluster}}", file))
		}
		return pusher{node, file}, nil
	}
}

// A pusher writes versions of the files.
type pusher struct {
	config.Node
	file string // the configuration's
}

// withStore opens the store, calls f and closes it. One that isn't made yet is empty to who only reads.
func (p pusher) withStore(ctx context.Context, options certstore.Options, f func(*certstore.Store) error) error {
	store, err := p.Store.Value.Open(ctx, options)
	switch {
	case options.ReadOnly && errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return p.badStore(err)
	}
	return errors.Join(f(store), store.Close())
}

// badStore returns the error for a store that does not open, can't be read, or is not written to.
func (p pusher) badStore(err error) error {
	if errors.Is(err, certstore.ErrSuperseded) {
		return err
	}
	var list control.Problems
	list.Add(p.Store.Place, fmt.Errorf("store: %w", err))
	return list
}

// check loads the configuration with the files in the place of those that are in the folder, as validate does, and
// returns what is worth a second look. Places in these files begin with shown.
func (p pusher) check(ctx context.Context, files fileset.Set, shown string) (warnings []string, err error) {
	ctx, release := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM) // which would leave the folder behind
	defer release()
	dir, err := os.MkdirTemp("", "sallyport-check-") // readable by this user alone
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if err := files.Write(dir); err != nil {
		return nil, err
	}
	show := strings.NewReplacer(dir, shown).Replace
	cfg, err := config.LoadWith(p.file, dir)
	var a *control.Assembly
	if err == nil {
		a, err = control.Build(ctx, &cfg.Spec)
	}
	if err != nil {
		var list control.Problems
		if !errors.As(err, &list) {
			return nil, usage(errors.New(show(err.Error())))
		}
		list = slices.Clone(list)
		for i := range list {
			list[i].File, list[i].Message = show(list[i].File), show(list[i].Message)
		}
		return nil, list
	}
	defer a.Close()
	for _, w := range doubts(cfg, a) {
		warnings = append(warnings, show(w))
	}
	return warnings, ctx.Err()
}

// write makes a version of the files, whose names begin with shown, that follows the current one.
func (p pusher) write(
	ctx context.Context, s *certstore.Store, current certstore.Configuration, files fileset.Set, shown string,
	rollbackOf int,
) (certstore.Configuration, error) {
	next := certstore.Configuration{
		Version: current.Version + 1, CreatedAt: time.Now(), CreatedBy: whoami(), RollbackOf: rollbackOf, Files: len(files),
	}
	key, err := p.Cluster.Key()
	if err != nil {
		return next, usage(err)
	}
	if next.KeyID = key.ID(); next.KeyID == "" {
		if err := files.Secret(); err != nil {
			return next, usage(fmt.Errorf("%s/%w", shown, err))
		}
	}
	sealed, digest, err := key.Seal(next.Version, files)
	if err != nil {
		return next, err
	}
	next.Digest = digest
	rows := make([]certstore.ConfigurationFile, len(sealed))
	for i, f := range sealed {
		rows[i] = certstore.ConfigurationFile(f)
	}
	if err := s.AddConfiguration(ctx, next, rows); err != nil {
		return next, p.badStore(err)
	}
	return next, nil
}

// whoami is USER@HOST.
func whoami() string {
	name := "unknown"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	host, err := os.Hostname()
	if err != nil {
		return name
	}
	return name + "@" + host
}

// tell prints what was written.
func (p pusher) tell(out io.Writer, c certstore.Configuration, files fileset.Set, warnings []string) error {
	what := fmt.Sprintf("version %d: %s, %d bytes", c.Version, count(len(files), "file"), files.Size())
	if c.RollbackOf > 0 {
		what += fmt.Sprintf(", those of version %d", c.RollbackOf)
	}
	if c.KeyID != "" {
		what += ", encrypted under " + c.KeyID
	}
	for _, w := range warnings {
		what += "\nworth a second look: " + w
	}
	const then = "running gateways take it up within a second; sallyport config versions tells which have"
	_, err := fmt.Fprintf(out, "%s\n%s\n", what, then)
	if err != nil {
		return fmt.Errorf("it is done, and could not be told: %w", err)
	}
	return nil
}

func configPush() *cobra.Command {
	cmd := &cobra.Command{
		Use:        "push DIR",
		SuggestFor: []string{"add", "upload", "publish", "apply"},
		Short:      "Write the files of a folder to the store as a new version",
		Long: `Write the files of a folder to the store as a new version. Before, the configuration is
checked as validate does, with DIR in the place of gateway.config.folder; if anything
is wrong, nothing is written. Names that begin with a dot are left out.`,
		Args: takes(1, "folder"),
	}
	load := nodeFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		p, err := load()
		if err != nil {
			return err
		}
		dir := filepath.Clean(args[0])
		files, err := fileset.Read(dir)
		if err != nil {
			return usage(fmt.Errorf("%s: %w", dir, err))
		}
		warnings, err := p.check(cmd.Context(), files, dir)
		if err != nil {
			return err
		}
		return p.withStore(cmd.Context(), certstore.Options{}, func(s *certstore.Store) error {
			current, err := s.CurrentConfiguration(cmd.Context())
			if err != nil {
				return p.badStore(err)
			}
			next, err := p.write(cmd.Context(), s, current, files, dir, 0)
			if err != nil {
				return err
			}
			return p.tell(cmd.OutOrStdout(), next, files, warnings)
		})
	}
	return cmd
}

func configRollback() *cobra.Command {
	cmd := &cobra.Command{
		Use:        "rollback [VERSION]",
		SuggestFor: []string{"revert", "undo", "back"},
		Short:      "Make a new version of the files of an earlier one",
		Long: `Make a new version of the files of an earlier one, of that before the current one unless
VERSION says another. It is checked as by push.`,
		Args: takes(0, "version"),
	}
	load := nodeFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		p, err := load()
		if err != nil {
			return err
		}
		wanted := 0
		if len(args) == 1 {
			if wanted, err = strconv.Atoi(args[0]); err != nil || wanted < 1 {
				return usage(fmt.Errorf("version %q is no number from 1: sallyport config versions lists them", args[0]))
			}
		}
		return p.withStore(cmd.Context(), certstore.Options{}, func(s *certstore.Store) error {
			return p.again(cmd, s, func(all []certstore.Configuration) (certstore.Configuration, int, error) {
				return earlier(all, wanted)
			})
		})
	}
	return cmd
}

// earlier returns the version with that number, the second of all if it is 0.
func earlier(all []certstore.Configuration, wanted int) (c certstore.Configuration, rollbackOf int, err error) {
	if wanted == 0 {
		if len(all) < 2 {
			return c, 0, errors.New("the store has no version before the current one: sallyport config versions lists them")
		}
		return all[1], all[1].Version, nil
	}
	for _, c := range all {
		if c.Version == wanted {
			return c, c.Version, nil
		}
	}
	return c, 0, fmt.Errorf("the store has no version %d: sallyport config versions lists them", wanted)
}

// A choice picks one of all versions, the current one first, and says which one a new one would go back to; 0: to none.
type choice func(all []certstore.Configuration) (c certstore.Configuration, rollbackOf int, err error)

// again writes the files of a version that which picks as a new one, after they were checked.
func (p pusher) again(cmd *cobra.Command, s *certstore.Store, which choice) error {
	all, err := s.Configurations(cmd.Context())
	if err != nil {
		return p.badStore(err)
	}
	if len(all) == 0 {
		return errors.New("the store has no configuration yet: sallyport config push writes one")
	}
	old, rollbackOf, err := which(all)
	if err != nil {
		return err
	}
	files, err := p.Cluster.Read(cmd.Context(), s, old)
	if err != nil {
		return usage(err)
	}
	shown := fmt.Sprintf("version %d", old.Version)
	warnings, err := p.check(cmd.Context(), files, shown)
	if err != nil {
		return err
	}
	next, err := p.write(cmd.Context(), s, all[0], files, shown, rollbackOf)
	if err != nil {
		return err
	}
	return p.tell(cmd.OutOrStdout(), next, files, warnings)
}

func configRekey() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rekey",
		Short: "Make a new version of the current files under the first key of the keyFile",
		Long: `Make a new version of the current files under the first key of the keyFile. To change keys,
put a new one first in the keyFile of every gateway, rekey, and take the old one out when
no version under it is wanted any more.`,
		Args: noArgs,
	}
	load := nodeFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		p, err := load()
		if err != nil {
			return err
		}
		return p.withStore(cmd.Context(), certstore.Options{}, func(s *certstore.Store) error {
			return p.again(cmd, s, func(all []certstore.Configuration) (certstore.Configuration, int, error) {
				return all[0], 0, nil
			})
		})
	}
	return cmd
}

func configKey() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "key [FILE]",
		Short: "Make a key that the files are encrypted under",
		Long: `Make a key that the files are encrypted under, in a new FILE that only this user may read,
gateway.config.keyFile unless another is named. Every gateway of the cluster needs a copy.`,
		Args: takes(0, "file"),
	}
	load := nodeFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		file := ""
		if len(args) == 1 {
			file = args[0]
		} else {
			p, err := load()
			if err != nil {
				return err
			}
			if file = p.Cluster.KeyFile; file == "" {
				return usage(fmt.Errorf("%s: gateway.config names no keyFile: add one, or say which FILE is to be made", p.Place))
			}
		}
		content, id, err := fileset.NewKey()
		if err != nil {
			return err
		}
		if err := makeSecret(file, content); err != nil {
			return usage(fmt.Errorf("%s: %w", file, err))
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "made the key %s in %s\n"+
			"copy that file to every gateway, and keep a copy apart from the store\n", id, file)
		return err
	}
	return cmd
}

// makeSecret makes a file that only this user may read. One that is there already stays.
func makeSecret(file string, content []byte) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return errors.New("it is there already: to change keys, make one in another file and put its line first in this one")
	}
	if path := (*fs.PathError)(nil); errors.As(err, &path) {
		return path.Err
	}
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func configVersions() *cobra.Command {
	cmd := &cobra.Command{
		Use:        "versions",
		SuggestFor: []string{"list", "ls", "history", "log", "status"},
		Short:      "List the versions, and which gateway has which in force",
		Args:       noArgs,
	}
	load := nodeFlag(cmd)
	asJSON := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		wantJSON, err := asJSON()
		if err != nil {
			return err
		}
		p, err := load()
		if err != nil {
			return err
		}
		list, err := p.versions(cmd.Context())
		if err != nil {
			return err
		}
		if wantJSON {
			return printJSON(cmd.OutOrStdout(), list)
		}
		list.print(cmd.OutOrStdout(), time.Now())
		return nil
	}
	return cmd
}

// A versionList is what versions found; its fields are the JSON form.
type versionList struct {
	Versions []versionEntry `json:"versions"` // the current one first
	Nodes    []nodeEntry    `json:"nodes"`
}

type versionEntry struct {
	Version    int       `json:"version"`
	Current    bool      `json:"current"`
	CreatedAt  time.Time `json:"createdAt"`
	CreatedBy  string    `json:"createdBy"`
	Files      int       `json:"files"`
	KeyID      string    `json:"keyId,omitempty"`
	RollbackOf int       `json:"rollbackOf,omitempty"`
}

type nodeEntry struct {
	Node    string    `json:"node"`
	Version int       `json:"version"` // that is in force
	Trouble string    `json:"trouble,omitempty"`
	SeenAt  time.Time `json:"seenAt"`
}

// versions reads the list.
func (p pusher) versions(ctx context.Context) (versionList, error) {
	list := versionList{[]versionEntry{}, []nodeEntry{}}
	err := p.withStore(ctx, certstore.Options{ReadOnly: true}, func(s *certstore.Store) error {
		all, err := s.Configurations(ctx)
		if err != nil {
			return p.badStore(err)
		}
		nodes, err := s.Nodes(ctx)
		if err != nil {
			return p.badStore(err)
		}
		for i, c := range all {
			list.Versions = append(list.Versions, versionEntry{
				c.Version, i == 0, c.CreatedAt.UTC(), c.CreatedBy, c.Files, c.KeyID, c.RollbackOf,
			})
		}
		for _, n := range nodes {
			list.Nodes = append(list.Nodes, nodeEntry{n.Name, n.Version, n.Trouble, n.SeenAt.UTC()})
		}
		return nil
	})
	return list, err
}

// gone is after how long without a word a gateway is taken for one that does not run.
const gone = 2 * time.Minute

func (v versionList) print(out io.Writer, now time.Time) {
	if len(v.Versions) == 0 {
		fmt.Fprintln(out, "the store has no configuration yet: sallyport config push writes one")
		return
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "VERSION\tWRITTEN (UTC)\tBY\tFILES\tKEY\tNOTE")
	for _, c := range v.Versions {
		var notes []string
		if c.Current {
			notes = append(notes, "current")
		}
		if c.RollbackOf > 0 {
			notes = append(notes, fmt.Sprintf("the files of version %d", c.RollbackOf))
		}
		key := c.KeyID
		if key == "" {
			key = "none"
		}
		fmt.Fprintf(w, "%d\t%s\t%s\t%d\t%s\t%s\n",
			c.Version, c.CreatedAt.Format(time.DateTime), c.CreatedBy, c.Files, key, strings.Join(notes, ", "))
	}
	w.Flush()
	if len(v.Nodes) == 0 {
		fmt.Fprintln(out, "\nNo gateway has told of itself yet.")
		return
	}
	fmt.Fprintln(out)
	w = tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "GATEWAY\tVERSION\tSEEN (UTC)\tSTATE")
	for _, n := range v.Nodes {
		state := "in force"
		switch {
		case n.Trouble != "":
			state = n.Trouble
		case n.Version != v.Versions[0].Version:
			state = "not the current one yet"
		}
		if now.Sub(n.SeenAt) > gone {
			state = "says nothing any more; last: " + state
		}
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\n", n.Node, n.Version, n.SeenAt.Format(time.DateTime), state)
	}
	w.Flush()
}
