package control

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"

	"github.com/fsnotify/fsnotify"
)

// fileEvents tell which sources may have changed. They are hints: some file systems have no events, so the loop also
// looks once a period. A change of a symbolic link on the way to a file counts too, since Kubernetes swaps volumes that
// way.
type fileEvents struct {
	watcher *fsnotify.Watcher     // nil: there is none
	events  <-chan fsnotify.Event // the watcher's
	lost    <-chan error          // the watcher's: tells that events were lost
	paths   map[string][]string   // the sources to which each path belongs
	globs   []string              // of the configuration: any file that begins or ceases to match
	folders map[string]bool       // that are to be watched
}

// follow watches these files, by source, and reports whether it made a new watcher, so that events may have been lost.
// A folder that does not exist or cannot be watched is tried again each time.
func (e *fileEvents) follow(files map[string][]string, globs []string) (anew bool, err error) {
	e.paths, e.globs = map[string][]string{}, globs
	folders, plain := map[string]bool{}, map[string]bool{}
	for source, list := range files {
		for _, file := range list {
			for _, p := range links(file, plain) {
				e.paths[p] = append(e.paths[p], source)
				folders[filepath.Dir(p)] = true
			}
		}
	}
	for _, glob := range globs {
		// The folder part may be a pattern too. Its matches are watched; new ones are found by the looks at periods.
		dirs, _ := filepath.Glob(filepath.Dir(glob)) // a bad pattern was refused with the configuration
		for _, dir := range dirs {
			folders[dir] = true
		}
	}
	// Folders are never removed from a watcher: fsnotify panics if one is removed while it disappears. A new watcher
	// takes the place of the old one before that is closed.
	last := e.watcher
	if last == nil || !maps.Equal(folders, e.folders) {
		if e.watcher, err = fsnotify.NewWatcher(); err != nil {
			e.watcher = last
			return false, fmt.Errorf("file events: %w", err)
		}
		e.events, e.lost, e.folders = e.watcher.Events, e.watcher.Errors, folders
	}
	for dir := range folders {
		// Adding a folder again does nothing, unless another folder has taken its place.
		_ = e.watcher.Add(dir)
	}
	if last != nil && last != e.watcher {
		_ = last.Close()
	}
	return last != e.watcher, nil
}

func (e *fileEvents) close() {
	if e.watcher != nil {
		_ = e.watcher.Close()
	}
}

// concerned returns the sources that an event is about.
func (e *fileEvents) concerned(event fsnotify.Event) []string {
	sources := e.paths[event.Name]
	for _, glob := range e.globs {
		if ok, _ := filepath.Match(glob, event.Name); ok {
			sources = append(sources[:len(sources):len(sources)], configuration)
			break
		}
	}
	if len(sources) > 0 && event.Op == fsnotify.Chmod {
		if _, err := os.Lstat(event.Name); err != nil {
			return nil
		}
	}
	return sources
}

// maxLinks bounds a chain of symbolic links, as Linux does.
const maxLinks = 40

// links returns the file's path, that of each symbolic link on the way to it, and what the links lead to. plain are
// paths that were found to be no links, so that each folder is asked once for all files in it.
func links(file string, plain map[string]bool) []string {
	list := []string{file}
	for range maxLinks {
		next, link, ok := readlink(file, plain)
		if !ok {
			break
		}
		list = append(list, link, next)
		file = next
	}
	return list
}

// readlink resolves the first symbolic link in a path.
func readlink(path string, plain map[string]bool) (next, link string, ok bool) {
	for i := 1; i <= len(path); i++ {
		if i < len(path) && path[i] != filepath.Separator {
			continue
		}
		if link = path[:i]; plain[link] {
			continue
		}
		target, err := os.Readlink(link)
		if err != nil {
			plain[link] = true
			continue
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(link), target)
		}
		return filepath.Join(target, path[i:]), link, true
	}
	return "", "", false
}
