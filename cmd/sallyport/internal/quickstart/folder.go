package quickstart

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"sallyport/internal/regularfile"
)

// What the folder holds beside keys and certificates, whose names are made from the clients'. Slashes, as in the
// configuration.
const (
	fileMarker       = ".quickstart.json"
	fileSettings     = "sallyport.yaml"
	fileProfiles     = "listenerprofiles.xml"
	fileDatabase     = "sallyport.db"
	fileCA           = "ca.crt"
	fileJWKS         = "jwks.json"
	fileGateway      = "stores/gateway.jks"
	fileClientTrust  = "stores/client-truststore.jks"
	fileLBTrust      = "stores/lb-truststore.jks"
	passGateway      = "secrets/gateway.password"
	passClientTrust  = "secrets/client-truststore.password"
	passLBTrust      = "secrets/lb-truststore.password"
	fileCAKey        = "secrets/ca.key"
	fileIssuerKey    = "secrets/issuer.key"
	fileIssuerSecret = "secrets/issuer-client.secret"
	tokenValid       = "tokens/valid.jwt"
	tokenExpired     = "tokens/expired.jwt"
	tokenForged      = "tokens/forged.jwt"
)

// manifest is every file of a complete folder, in the order in which people would look at them.
func manifest() []string {
	names := []string{
		fileMarker, fileSettings, fileProfiles, fileDatabase, fileCA, fileJWKS,
		fileGateway, fileClientTrust, fileLBTrust,
		passGateway, passClientTrust, passLBTrust, fileCAKey, fileIssuerKey, fileIssuerSecret,
		tokenValid, tokenExpired, tokenForged,
	}
	for _, c := range clients {
		names = append(names, c.certificateFile(), c.keyFile())
	}
	return names
}

// private reports whether only the owner may read name: keys, passwords, keystores, tokens and the database.
func private(name string) bool {
	dir, _, nested := strings.Cut(name, "/")
	return name == fileDatabase || nested && dir != "clients" || strings.HasSuffix(name, ".key")
}

// A folder is the demonstration's place on disk.
type folder struct {
	shown string // as the user named it
	dir   string // absolute; not a symbolic link
}

func (f *folder) path(name string) string { return filepath.Join(f.dir, filepath.FromSlash(name)) }

func (f *folder) shownPath(name string) string {
	return filepath.Join(f.shown, filepath.FromSlash(name))
}

// locate finds the place that name means. It need not exist yet.
func locate(name string) (*folder, error) {
	dir, err := filepath.Abs(name)
	if err != nil {
		return nil, fmt.Errorf("folder %s: %w", name, err)
	}
	if info, err := os.Lstat(dir); err == nil && info.Mode()&fs.ModeSymlink != 0 {
		// The folder is renamed into place: the place is where the link points to, not the link.
		if dir, err = filepath.EvalSymlinks(dir); err != nil {
			return nil, fmt.Errorf("folder %s: %w", name, err)
		}
	}
	return &folder{shown: filepath.Clean(name), dir: dir}, nil
}

// ours reports whether the folder is a demonstration already (true), or free to become one (false: absent or empty).
// Anything else is somebody's, and an error.
func (f *folder) ours() (bool, error) {
	info, err := os.Stat(f.dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("looking at %s: %w", f.shown, err)
	case !info.IsDir():
		return false, fmt.Errorf("%w: %s is not a folder: name another one with --dir", ErrUsage, f.shown)
	}
	if _, err := os.Lstat(f.path(fileMarker)); err == nil {
		return true, nil
	}
	entries, err := os.ReadDir(f.dir)
	if err != nil {
		return false, fmt.Errorf("looking at %s: %w", f.shown, err)
	}
	if len(entries) > 0 {
		return false, fmt.Errorf("%w: %s is not empty and was not made by quickstart: name another folder with --dir", ErrUsage, f.shown)
	}
	return false, nil
}

// complete finds what is missing from a folder that is ours.
func (f *folder) complete() error {
	var missing []string
	for _, name := range manifest() {
		info, err := os.Stat(f.path(name))
		if err == nil && info.Mode().IsRegular() {
			continue
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("looking at %s: %w", f.shownPath(name), err)
		}
		missing = append(missing, name)
	}
	if len(missing) > 0 {
		return fmt.Errorf("%w: %s lacks %s: put it back, or remove the folder and run quickstart again",
			ErrUsage, f.shown, strings.Join(missing, ", "))
	}
	return nil
}

// protect takes the group's and others' rights from private files, which a copy of the folder may have gained.
func (f *folder) protect() error {
	if runtime.GOOS == "windows" {
		return nil
	}
	names := manifest()
	for _, name := range curlNames() {
		names = append(names, curlFile(name))
	}
	for _, name := range names {
		if !private(name) {
			continue
		}
		info, err := os.Stat(f.path(name))
		if err != nil {
			return fmt.Errorf("looking at %s: %w", f.shownPath(name), err)
		}
		if info.Mode().Perm()&0o077 == 0 {
			continue
		}
		if err := os.Chmod(f.path(name), info.Mode().Perm()&0o700); err != nil {
			return fmt.Errorf("protecting %s: %w", f.shownPath(name), err)
		}
	}
	return nil
}

// A marker says that quickstart made the folder, and what it must know to use it again.
type marker struct {
	Format     int       `json:"format"`
	Made       time.Time `json:"made"`
	Until      time.Time `json:"until"`      // the first end of what has to be valid
	PortOffset int       `json:"portOffset"` // the one in sallyport.yaml
	Settings   []string  `json:"settings"`   // SHA-256 of sallyport.yaml as generated; two while it is being replaced
}

// maxFile bounds each file of the folder that is read again, in bytes.
const maxFile = 4 << 20

// markerFormat changes when this program can no longer use folders of an earlier one.
const markerFormat = 1

func (f *folder) readMarker() (marker, error) {
	data, err := regularfile.Read(f.path(fileMarker), maxFile)
	if err != nil {
		return marker{}, fmt.Errorf("reading %s: %w", f.shownPath(fileMarker), err)
	}
	m, err := parseMarker(data)
	if err != nil {
		return marker{}, fmt.Errorf("%w: %s: %w: remove the folder, or name another one with --dir",
			ErrUsage, f.shownPath(fileMarker), err)
	}
	return m, nil
}

func parseMarker(data []byte) (marker, error) {
	var m marker
	if err := json.Unmarshal(data, &m); err != nil {
		return marker{}, errors.New("it is not as quickstart wrote it")
	}
	if m.Format != markerFormat || len(m.Settings) == 0 {
		return marker{}, errors.New("made by another version of quickstart")
	}
	return m, nil
}

// writeMarker hands the marker to write or replace.
func (f *folder) writeMarker(write func(name string, data []byte) error, m marker) error {
	data, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding %s: %w", fileMarker, err) // a clock past the year 9999
	}
	return write(fileMarker, append(data, '\n'))
}

// settle brings sallyport.yaml to ports and reports whether somebody has edited that file.
// An edited file is left alone: it is an error if its ports are not the ones asked for.
func (f *folder) settle(m marker, ports Ports) (edited bool, err error) {
	data, err := regularfile.Read(f.path(fileSettings), maxFile)
	if err != nil {
		return false, fmt.Errorf("reading %s: %w", f.shownPath(fileSettings), err)
	}
	edited = !slices.Contains(m.Settings, digest(data))
	if m.PortOffset == ports.offset() && len(m.Settings) == 1 {
		return edited, nil
	}
	if edited {
		return true, fmt.Errorf("%w: %s was edited since it was made with --port-offset %d, so its ports are not changed: "+
			"run again with that offset, or make another demonstration with --dir", ErrUsage, f.shownPath(fileSettings), m.PortOffset)
	}
	data, err = renderSettings(ports)
	if err != nil {
		return false, err
	}
	// Three steps, so that a crash between any two leaves a file that the next run knows as generated.
	m.Settings = append(m.Settings, digest(data))
	if err := f.writeMarker(f.replace, m); err != nil {
		return false, err
	}
	if err := f.replace(fileSettings, data); err != nil {
		return false, err
	}
	m.Settings, m.PortOffset = []string{digest(data)}, ports.offset()
	return false, f.writeMarker(f.replace, m)
}

// replace swaps the content of a file that others may be reading.
func (f *folder) replace(name string, data []byte) error {
	temp, err := os.CreateTemp(f.dir, ".replace-*")
	if err != nil {
		return fmt.Errorf("replacing %s: %w", f.shownPath(name), err)
	}
	_, err = temp.Write(data)
	err = errors.Join(err, temp.Chmod(mode(name)), temp.Sync(), temp.Close())
	if err == nil {
		err = os.Rename(temp.Name(), f.path(name))
	}
	if err != nil {
		os.Remove(temp.Name())
		return fmt.Errorf("replacing %s: %w", f.shownPath(name), err)
	}
	return syncPath(f.dir)
}

// build makes the folder beside its place and renames it there. It reports false if another process was quicker.
func (f *folder) build(ctx context.Context, ports Ports, now time.Time, register Registrar) (made bool, err error) {
	if register == nil {
		return false, errors.New("no registrar")
	}
	parent := filepath.Dir(f.dir)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return false, err
	}
	f.sweep(parent)
	temp, err := os.MkdirTemp(parent, f.tempPrefix())
	if err != nil {
		return false, err
	}
	defer func() {
		if !made {
			os.RemoveAll(temp)
		}
	}()
	if err := fill(ctx, &folder{shown: f.shown, dir: temp}, ports, now, register); err != nil {
		return false, err
	}
	if err := syncTree(temp); err != nil {
		return false, err
	}
	if err := ctx.Err(); err != nil {
		return false, err
	}
	if err := f.vacate(); err != nil {
		return false, err
	}
	if err := os.Rename(temp, f.dir); err != nil {
		if ours, oursErr := f.ours(); oursErr == nil && ours {
			return false, nil
		}
		return false, err
	}
	return true, syncPath(parent)
}

// vacate removes the empty folder that stands where the new one goes.
func (f *folder) vacate() error {
	info, err := os.Stat(f.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if here, err := os.Stat("."); err == nil && os.SameFile(here, info) {
		return fmt.Errorf("%w: %s is the current folder: name one in it with --dir", ErrUsage, f.shown)
	}
	if ours, err := f.ours(); err != nil || ours {
		return err // ours: Rename finds it and says so
	}
	if err := os.Remove(f.dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %s cannot be replaced: name a folder in it with --dir: %w", ErrUsage, f.shown, err)
	}
	return nil
}

func (f *folder) tempPrefix() string { return "." + filepath.Base(f.dir) + ".making-" }

// sweep removes what crashed runs left beside the folder. A run that is under way takes seconds: an hour tells them
// apart.
func (f *folder) sweep(parent string) {
	entries, err := os.ReadDir(parent)
	if err != nil {
		return // the parent may be closed to reading; nothing depends on the sweep
	}
	for _, e := range entries {
		if !e.IsDir() || !strings.HasPrefix(e.Name(), f.tempPrefix()) {
			continue
		}
		// The file system's time is the machine's own, whatever clock the demonstration lives by.
		if info, err := e.Info(); err == nil && time.Since(info.ModTime()) > time.Hour {
			os.RemoveAll(filepath.Join(parent, e.Name()))
		}
	}
}

// write creates a file of the folder, and the folder it lies in.
func (f *folder) write(name string, data []byte) error {
	path := f.path(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return os.WriteFile(path, data, mode(name))
}

func mode(name string) fs.FileMode {
	if private(name) {
		return 0o600
	}
	return 0o644
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// syncTree puts every file and folder at and below dir on disk.
func syncTree(dir string) error {
	return filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return syncPath(path)
	})
}

func syncPath(path string) error {
	if runtime.GOOS == "windows" {
		return nil // it flushes writable files only, and no folders
	}
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(file.Sync(), file.Close())
}

// readSecret reads a one-line secret.
func (f *folder) readSecret(name string) (string, error) {
	data, err := regularfile.Read(f.path(name), maxFile)
	if err != nil {
		return "", fmt.Errorf("reading %s: %w", f.shownPath(name), err)
	}
	data = bytes.TrimSuffix(data, []byte("\n"))
	if len(data) == 0 {
		return "", fmt.Errorf("%w: %s is empty: put it back, or remove the folder and run quickstart again", ErrUsage, f.shownPath(name))
	}
	return string(data), nil
}
