package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"sallyport/certstore"
	"sallyport/internal/fileset"
)

// A Cluster says where a gateway keeps the files that it shares with others, which the store has versions of. The zero
// Cluster shares none.
type Cluster struct {
	Node    string // the gateway's name among the others
	Folder  string // that the files are written to; absolute
	KeyFile string // of the key that the store's files are encrypted under; absolute; "": they are not
}

// Key reads the key, the zero Key without a KeyFile.
func (c Cluster) Key() (fileset.Key, error) {
	if c.KeyFile == "" {
		return fileset.Key{}, nil
	}
	return fileset.ReadKey(c.KeyFile)
}

// Read returns the files of a version of the store.
func (c Cluster) Read(ctx context.Context, s *certstore.Store, version certstore.Configuration) (fileset.Set, error) {
	key, err := c.Key()
	if err == nil {
		err = key.CanOpen(version.KeyID) // before all of it is read
	}
	var sealed []fileset.File
	if err == nil {
		var files []certstore.ConfigurationFile
		files, err = s.ConfigurationFiles(ctx, version.Version)
		for _, f := range files {
			sealed = append(sealed, fileset.File(f))
		}
	}
	var set fileset.Set
	if err == nil {
		set, err = key.Open(version.Version, version.KeyID, sealed, version.Digest)
	}
	if err != nil {
		return nil, fmt.Errorf("version %d of the configuration: %w", version.Version, err)
	}
	return set, nil
}

func (c Cluster) folder() fileset.Folder { return fileset.Folder(c.Folder) }

func versionOf(c certstore.Configuration) fileset.Version {
	return fileset.Version{Number: c.Version, Digest: c.Digest}
}

// take writes a version of the store to the folder.
func (c Cluster) take(ctx context.Context, s *certstore.Store, version certstore.Configuration) error {
	set, err := c.Read(ctx, s, version)
	if err != nil {
		return err
	}
	return c.folder().Put(versionOf(version), set)
}

// Prepare has the folder hold the current version of the store, for the configuration to be read after it. Where that
// can't be done, a whole version that is there already is good enough, and log is told why. The error is Problems, with
// the place of the store or that where the folder is named.
func (c Cluster) Prepare(ctx context.Context, at Place, from Placed[certstore.Source], log *slog.Logger) error {
	held, missing := c.folder().Holds()
	problem := c.prepare(ctx, at, from, held)
	if len(problem) == 0 {
		return nil
	}
	if missing != nil {
		return problem
	}
	log.Error("the files of the configuration are those that this node has already", "version", held.Number, "error", problem)
	return nil
}

func (c Cluster) prepare(
	ctx context.Context, at Place, from Placed[certstore.Source], held fileset.Version,
) (problem Problems) {
	s, err := from.Value.Open(ctx, certstore.Options{})
	if err != nil {
		problem.Add(from.Place, fmt.Errorf("store: %w", err))
		return problem
	}
	defer s.Close()
	current, err := s.CurrentConfiguration(ctx)
	switch {
	case err != nil:
		problem.Add(from.Place, fmt.Errorf("store: %w", err))
	case current.Version == 0:
		const message = "the store has no configuration yet: sallyport config push writes one"
		problem = Problems{{Place: at, Message: message, Passing: true}}
	case versionOf(current) != held:
		problem.Add(at, c.take(ctx, s, current))
	}
	return problem
}

// Proven reports whether the folder's version has been in force on this node.
func (c Cluster) Proven() bool { return c.folder().Vouched() }

// GoBack has the folder hold the last version that was in force on this node, in the place of one that is not good for the
// reason why, which log is told. It reports whether there is one.
func (c Cluster) GoBack(why error, log *slog.Logger) bool {
	bad, _ := c.folder().Holds()
	if c.folder().Revert() != nil {
		return false
	}
	good, err := c.folder().Holds()
	if err != nil {
		return false
	}
	log.Error("a version of the configuration is not good here; the last one that was serves on",
		"bad", bad.Number, "version", good.Number, "error", why)
	return true
}

const (
	// clusterInterval is how often the store is asked for a newer version.
	clusterInterval = 500 * time.Millisecond
	// takeAgain is how long after a version could not be taken it is tried again.
	takeAgain = 10 * time.Second
	// nodeInterval is how often a gateway tells the store of itself when nothing has changed.
	nodeInterval = 30 * time.Second
)

// A follower has a gateway's files follow the store.
type follower struct {
	*Loop
	held    fileset.Version // what the folder holds
	proven  fileset.Version // what the folder held when it was in force last
	refused fileset.Version // what could not be taken,
	when    time.Time       // when that was
	told    certstore.Node  // what the store knows of this gateway
	untold  bool            // the store did not take it
}

// followCluster writes each new version of the store to the folder, has the loop look at it, and tells the store what is
// in force. It is a task of its own, so that a store that doesn't answer holds up nothing else.
func (l *Loop) followCluster(ctx context.Context) error {
	if l.cfg.Cluster.Folder == "" {
		return nil
	}
	f := &follower{Loop: l}
	f.held, _ = l.cfg.Cluster.folder().Holds() // else it is written anew
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(clusterInterval):
		}
		if s := l.inForce.Load().store; s != nil {
			f.follow(ctx, s)
		}
	}
}

func (f *follower) follow(ctx context.Context, s *certstore.Store) {
	ctx, cancel := context.WithTimeout(ctx, storePatience)
	defer cancel()
	current, err := s.CurrentConfiguration(ctx)
	if errors.Is(err, certstore.ErrUnavailable) || ctx.Err() != nil {
		return // the source store tells
	}
	next := versionOf(current)
	switch {
	case err != nil:
	case next == f.held || current.Version == 0:
		f.board.mended(cluster)
	case next == f.refused && time.Since(f.when) < takeAgain:
		err = f.board.state(cluster).Broken
	default:
		if err = f.cfg.Cluster.take(ctx, s, current); err == nil {
			f.held = next
			f.board.good(cluster)
			f.log.Info("a version of the configuration came from the store", "version", current.Version, "by", current.CreatedBy)
			f.markFiles()
			return // until it has been looked at, nothing can be told of it
		}
		f.refused, f.when = next, time.Now()
	}
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		f.refuse(err)
	}
	f.prove()
	f.tellStore(ctx, s)
}

// prove remembers for later starts that what the folder holds is in force.
func (f *follower) prove() {
	if f.proven == f.held || f.inForce.Load().Spec.Release != f.held.Number || f.trouble() != "" {
		return
	}
	f.proven = f.held
	if err := f.cfg.Cluster.folder().Vouch(); err != nil {
		f.log.Warn("a start with a version of the configuration that is bad here would fail", "error", err)
	}
}

// refuse reports an error unless it was reported already.
func (f *follower) refuse(err error) {
	if before := f.board.state(cluster).Broken; before == nil || before.Error() != err.Error() {
		f.board.bad(cluster, err)
		f.log.Error("a version of the configuration was not taken from the store; what is in force serves on", "error", err)
	}
}

// markFiles has the loop look at everything that is made of files.
func (l *Loop) markFiles() {
	l.mark(configuration)
	for _, listener := range l.inForce.Load().Spec.Listeners {
		if listener.TLS != nil {
			l.mark(profilesOf(listener.Name))
		}
	}
}

// tellStore tells the store which version is in force here, and what is not.
func (f *follower) tellStore(ctx context.Context, s *certstore.Store) {
	node := certstore.Node{Name: f.cfg.Cluster.Node, Version: f.inForce.Load().Spec.Release, Trouble: f.trouble()}
	same := node.Version == f.told.Version && node.Trouble == f.told.Trouble
	if same && time.Since(f.told.SeenAt) < nodeInterval {
		return
	}
	node.SeenAt = time.Now()
	if err := s.KeepNode(ctx, node); err != nil {
		if !f.untold && ctx.Err() == nil {
			f.log.Warn("the store does not learn which version of the configuration is in force here", "error", err)
		}
		f.untold = true
		return
	}
	f.told, f.untold = node, false
}

// trouble is what is broken of all that is made of files, on one line; "": nothing.
func (l *Loop) trouble() string {
	var list []string
	for _, s := range l.board.list() {
		ofFiles := s.Name == configuration || s.Name == cluster || strings.HasPrefix(s.Name, profilesOf("")) ||
			strings.HasPrefix(s.Name, apiFileOf(""))
		if s.Broken != nil && ofFiles {
			list = append(list, s.Name+": "+strings.ReplaceAll(s.Broken.Error(), "\n", "; "))
		}
	}
	return strings.Join(list, "; ")
}
