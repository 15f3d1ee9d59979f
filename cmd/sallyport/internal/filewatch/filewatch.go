// Package filewatch tells when files may have changed.
package filewatch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"
)

// settle is how long nothing has to happen to the files before they are looked at: who replaces several files does so
// one after another.
const settle = 100 * time.Millisecond

// longest is how long a file that never rests is waited for.
const longest = 2 * time.Second

// An Interest is what to watch. Paths are absolute; they need not exist.
type Interest struct {
	Files []string
	Globs []string // any file that begins or ceases to match
}

// Run calls changed after anything of interest may have changed, until ctx ends. It is a hint and no more: some file
// systems tell nothing, so whoever needs to be sure looks now and then as well. Interest is asked anew after each
// change and each period, since what is watched may name other files. Files are found through symbolic links, whose
// own change counts, as Kubernetes swaps its volumes.
func Run(ctx context.Context, period time.Duration, interest func() Interest, changed func()) error {
	var watched interests
	defer watched.close()
	if _, err := watched.renew(interest()); err != nil {
		return err
	}
	refresh := time.NewTicker(period)
	defer refresh.Stop()
	rest := time.NewTimer(0)
	defer rest.Stop()
	<-rest.C
	var since time.Time // the first event that nobody was told of; zero: there is none
	for {
		var err error
		anew := false
		select {
		case <-ctx.Done():
			return nil
		case event, ok := <-watched.watcher.Events:
			if !ok {
				return errors.New("file events have ended")
			}
			if !watched.concerns(event.Name) || event.Op == fsnotify.Chmod && !exists(event.Name) {
				continue
			}
			if since.IsZero() {
				since = time.Now()
			}
			if time.Since(since) < longest {
				rest.Reset(settle)
			}
		case <-rest.C:
			since = time.Time{}
			changed()
			anew, err = watched.renew(interest())
		case <-watched.watcher.Errors:
			// Events were lost: look, rather than guess which.
			if since.IsZero() {
				since = time.Now()
				rest.Reset(settle)
			}
		case <-refresh.C:
			anew, err = watched.renew(interest())
		}
		if err != nil {
			return err
		}
		if anew { // what the watcher before had not told yet
			since = time.Now()
			rest.Reset(settle)
		}
	}
}

func exists(name string) bool {
	_, err := os.Lstat(name)
	return err == nil
}

// interests are the paths whose events count, and the folders that are watched for them.
type interests struct {
	watcher *fsnotify.Watcher
	paths   map[string]bool
	globs   []string
	folders map[string]bool
}

// renew watches what is of interest now, and tells whether by another watcher than before. A folder that cannot be
// watched, or does not exist, is tried again each time.
func (s *interests) renew(interest Interest) (anew bool, err error) {
	s.paths, s.globs = map[string]bool{}, interest.Globs
	folders := map[string]bool{}
	for _, file := range interest.Files {
		for _, p := range links(file) {
			s.paths[p] = true
			folders[filepath.Dir(p)] = true
		}
	}
	for _, glob := range interest.Globs {
		// The folder part of a pattern may be one itself: then its matches are watched, and new ones are found by looking.
		dirs, _ := filepath.Glob(filepath.Dir(glob)) // a bad pattern was refused with the configuration
		for _, dir := range dirs {
			folders[dir] = true
		}
	}
	// Folders are never taken off a watcher: fsnotify panics if one is taken off while it goes by itself. Another watcher
	// takes its place instead, before it ends, so that nothing is missed.
	last := s.watcher
	if last != nil && !covers(folders, s.folders) {
		s.watcher = nil
	}
	if s.watcher == nil {
		watcher, err := fsnotify.NewWatcher()
		if err != nil {
			s.watcher = last
			return false, fmt.Errorf("file events: %w", err)
		}
		s.watcher = watcher
	}
	for dir := range folders {
		// Add of a folder that is watched already does nothing, unless another one is in its place now.
		if s.watcher.Add(dir) != nil {
			delete(folders, dir)
		}
	}
	s.folders = folders
	if last == nil || last == s.watcher {
		return false, nil
	}
	_ = last.Close()
	return true, nil
}

// covers tells whether all of some are among them.
func covers(them, some map[string]bool) bool {
	for one := range some {
		if !them[one] {
			return false
		}
	}
	return true
}

func (s *interests) close() {
	if s.watcher != nil {
		_ = s.watcher.Close()
	}
}

func (s *interests) concerns(path string) bool {
	return s.paths[path] || slices.ContainsFunc(s.globs, func(glob string) bool {
		ok, _ := filepath.Match(glob, path)
		return ok
	})
}

// maxLinks bounds a chain of symbolic links, as Linux does.
const maxLinks = 40

// links is the file's path, that of each symbolic link on the way to it, and what the links lead to.
func links(file string) []string {
	list := []string{file}
	for range maxLinks {
		next, link, ok := follow(file)
		if !ok {
			break
		}
		list = append(list, link, next)
		file = next
	}
	return list
}

// follow resolves the first symbolic link in a path.
func follow(path string) (next, link string, ok bool) {
	for i := 1; i <= len(path); i++ {
		if i < len(path) && path[i] != filepath.Separator {
			continue
		}
		link = path[:i]
		target, err := os.Readlink(link)
		if err != nil {
			continue
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(link), target)
		}
		return filepath.Join(target, path[i:]), link, true
	}
	return "", "", false
}
