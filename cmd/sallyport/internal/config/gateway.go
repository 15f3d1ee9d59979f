package config

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sallyport/certstore"
	"sallyport/gateway/control"
	"sallyport/internal/fileset"
	"sallyport/internal/regularfile"
)

// A Node is what a gateway has to know to fetch the files that it shares with others, before it reads them.
type Node struct {
	Place   control.Place // of gateway.config; the file alone if it has none
	Store   control.Placed[certstore.Source]
	Cluster control.Cluster // without a Folder: it shares none
}

// LoadNode reads the Node alone from file, and reports just what is wrong with that.
func LoadNode(file string) (Node, error) {
	from, data, err := open(file)
	if err != nil {
		return Node{}, err
	}
	l := newLoader(from, data, outside{regularfile.Read, glob, os.LookupEnv})
	root, ok := l.document(from, data)
	if ok {
		m := root.mapping("the configuration")
		l.gateway(m)
		l.cfg.Store = l.store(m)
		l.checkClusterStore()
	}
	if len(l.errs) > 0 {
		return Node{}, l.sorted(l.errs)
	}
	n := Node{l.cfg.cluster, l.cfg.Store, l.cfg.Cluster}
	if n.Cluster.Folder == "" {
		n.Place = control.Place{File: file}
	}
	return n, nil
}

// LoadWith is Load with the files of the folder dir, an absolute path, in the place of those in gateway.config.folder.
func LoadWith(file, dir string) (*Config, error) { return load(file, dir, false) }

// gateway reads `gateway`, what is this one's alone.
func (l *loader) gateway(m *mapping) {
	s, given := m.sub("gateway")
	if !given {
		return
	}
	defer s.end()
	l.cfg.Cluster.Node = s.checkName("name", s.text("name")).Value
	l.cfg.Labels = s.labels()
	c, given := s.sub("config")
	if !given {
		return
	}
	defer c.end()
	c.need("folder", "where the files of the store are written, as in cluster")
	l.cfg.cluster = c.Place
	folder, keyFile := c.text("folder"), c.text("keyFile")
	if keyFile.OK {
		l.cfg.Cluster.KeyFile = m.from.resolve(keyFile.Value)
	}
	if l.cfg.Cluster.Node == "" {
		l.cfg.Cluster.Node, _ = os.Hostname()
	}
	if folder.OK {
		l.clusterFolder(m.from, folder)
	}
}

func (l *loader) clusterFolder(main *source, folder text) {
	path := main.resolve(folder.Value)
	in := func(file string) bool { return file == path || within(path, file) }
	switch {
	case in(main.path):
		l.errorf(folder.Place, "folder %s holds this file itself: name a folder of its own, as in cluster", folder.Value)
		return
	case path == filepath.Dir(path):
		l.errorf(folder.Place, "folder %s has nothing beside it: name a folder of its own, as in cluster", folder.Value)
		return
	case l.cfg.Cluster.KeyFile != "" && in(l.cfg.Cluster.KeyFile):
		l.errorf(folder.Place, "folder %s holds the keyFile, which the store may not have: keep it elsewhere", folder.Value)
		return
	}
	l.cfg.Cluster.Folder = path
	if l.instead != "" {
		main.stead = stead{path, l.instead}
		return
	}
	if data, err := l.read(filepath.Join(path, fileset.MarkFile), maxFile); err == nil {
		version, err := fileset.ParseMark(data)
		if err != nil {
			l.errorf(folder.Place, "folder %s: %v", folder.Value, err)
		}
		l.cfg.Release = version.Number
	}
}

// checkClusterStore refuses a store that others can't share.
func (l *loader) checkClusterStore() {
	if url, err := certstore.ParseURL(l.cfg.Store.Value.URL); err == nil && url.InMemory() && l.cfg.Cluster.Folder != "" {
		l.errorf(l.cfg.cluster, "gateway.config fetches files from the store, and this one is in memory: name one that lasts")
	}
}

// labels reads `labels`.
func (m *mapping) labels() []string {
	values, _ := m.texts("labels")
	m.notEmpty("labels", "name at least one, or remove it")
	for _, v := range values {
		m.checkName("label", v)
	}
	return plain(values)
}

// servedHere reports whether this gateway serves an API with these labels: one of them is its own, or either has none.
func (l *loader) servedHere(labels []string) bool {
	return len(labels) == 0 || len(l.cfg.Labels) == 0 ||
		slices.ContainsFunc(labels, func(s string) bool { return slices.Contains(l.cfg.Labels, s) })
}

// A stead has the files of one folder read from another one.
type stead struct{ folder, dir string }

// within reports whether a path is below a folder.
func within(folder, path string) bool {
	return strings.HasPrefix(path, folder+string(filepath.Separator))
}

// actual returns where the file at a path is read.
func (s stead) actual(path string) string { return move(path, s.folder, s.dir) }

// belongs returns the path whose file is read at an actual path.
func (s stead) belongs(actual string) string { return move(actual, s.dir, s.folder) }

func move(path, from, to string) string {
	if from != "" && (path == from || within(from, path)) {
		return to + path[len(from):]
	}
	return path
}
