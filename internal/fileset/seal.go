package fileset

import (
	"bytes"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"strings"

	"filippo.io/age"

	"sallyport/internal/regularfile"
)

// A Key is what a cluster's gateways share to keep their files from whoever reads the store, and to know that one of them
// wrote what is there. The zero Key seals nothing.
type Key struct {
	identities []*age.X25519Identity // the first one encrypts
	file       string
}

const maxKeyFile = 64 << 10

// NewKey makes the content of a key file, and the ID of its key.
func NewKey() (content []byte, id string, err error) {
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		return nil, "", err
	}
	id = identity.Recipient().String()
	return fmt.Appendf(nil, "# public key: %s\n%s\n", id, identity), id, nil
}

// ReadKey reads a key file: age identities (AGE-SECRET-KEY-1…), one a line. The first one encrypts, and each decrypts
// what was encrypted under it. Nobody but the file's owner may have a right to it. No error shows any of it.
func ReadKey(file string) (Key, error) {
	data, err := readKeyFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return Key{}, fmt.Errorf("keyFile %s: %w: copy that of another gateway, or let sallyport config key make one",
			file, err)
	}
	if err != nil {
		return Key{}, fmt.Errorf("keyFile %s: %w", file, err)
	}
	k := Key{file: file}
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		identity, err := age.ParseX25519Identity(line)
		if err != nil { // not shown: it may quote the line
			return Key{}, fmt.Errorf("keyFile %s: a line is no key: let sallyport config key make one", file)
		}
		k.identities = append(k.identities, identity)
	}
	if len(k.identities) == 0 {
		return Key{}, fmt.Errorf("keyFile %s: it holds no key: let sallyport config key make one", file)
	}
	return k, nil
}

func readKeyFile(file string) ([]byte, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, cause(err)
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o177 != 0 {
		return nil, fmt.Errorf("its mode is %04o, and others than its owner may have no right to it: chmod 600",
			info.Mode().Perm())
	}
	return regularfile.Read(file, maxKeyFile)
}

// ID is the public name of the key that Seal encrypts under, "" for the zero Key.
func (k Key) ID() string {
	if len(k.identities) == 0 {
		return ""
	}
	return k.identities[0].Recipient().String()
}

// Seal makes what a store may hold of a version: the files' contents, encrypted unless k is the zero Key, and a digest
// that vouches for all of it. Without the Key nobody can make another one.
func (k Key) Seal(version int, s Set) (sealed []File, digest string, err error) {
	if len(k.identities) == 0 {
		return s, s.plain(version), nil
	}
	first := k.identities[0]
	for _, f := range s {
		content, err := encrypt(first, f.Content)
		if err != nil {
			return nil, "", fmt.Errorf("encrypt %s: %w", f.Path, err)
		}
		sealed = append(sealed, File{f.Path, content})
	}
	digest, err = keyed(first, version, s)
	return sealed, digest, err
}

func encrypt(identity *age.X25519Identity, parts ...[]byte) ([]byte, error) {
	var sealed bytes.Buffer
	w, err := age.Encrypt(&sealed, identity.Recipient())
	if err != nil {
		return nil, err
	}
	for _, part := range parts {
		if _, err := w.Write(part); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return sealed.Bytes(), nil
}

// derived is a key for one use that only who has the identity can make.
func derived(identity *age.X25519Identity, use string) ([]byte, error) {
	return hkdf.Key(sha256.New, []byte(identity.String()), nil, use, sha256.Size)
}

// keyed is a digest that only who has the identity can make. It shows nothing of files that could be guessed.
func keyed(identity *age.X25519Identity, version int, s Set) (string, error) {
	key, err := derived(identity, "sallyport: the digest of a configuration")
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%x", s.sum(hmac.New(sha256.New, key), version)), nil
}

// errDigest says that files are not those that were sealed.
var errDigest = errors.New("its digest does not fit its files: they were damaged, or changed by somebody without the key: " +
	"push it again")

// CanOpen reports why k can't open what was sealed under the key with that ID.
func (k Key) CanOpen(id string) error {
	_, err := k.identity(id)
	return err
}

func (k Key) identity(id string) (*age.X25519Identity, error) {
	switch {
	case id == "" && len(k.identities) == 0:
		return nil, nil
	case id == "":
		return nil, errors.New("it is not encrypted, and gateway.config.keyFile says that it has to be: push it again")
	case len(k.identities) == 0:
		return nil, fmt.Errorf("it is encrypted under the key %s: name a file that holds it as gateway.config.keyFile", id)
	}
	for _, identity := range k.identities {
		if identity.Recipient().String() == id {
			return identity, nil
		}
	}
	return nil, fmt.Errorf("it is encrypted under the key %s, which keyFile %s does not hold: add it there", id, k.file)
}

// Open is the Set of which Seal made the sealed files and the digest, under the key with that ID.
func (k Key) Open(version int, id string, sealed []File, digest string) (Set, error) {
	identity, err := k.identity(id)
	if err != nil {
		return nil, err
	}
	files := sealed
	if identity != nil {
		if files, err = decrypt(identity, sealed); err != nil {
			return nil, err
		}
	}
	s, err := NewSet(files)
	if err != nil {
		return nil, err
	}
	want := s.plain(version)
	if identity != nil {
		if want, err = keyed(identity, version, s); err != nil {
			return nil, err
		}
	}
	if !hmac.Equal([]byte(want), []byte(digest)) {
		return nil, errDigest
	}
	return s, nil
}

func decrypt(identity *age.X25519Identity, sealed []File) (files []File, err error) {
	for _, f := range sealed {
		content, err := decrypted(identity, f.Content)
		if err != nil {
			return nil, fmt.Errorf("%s: %w: push it again", f.Path, err)
		}
		files = append(files, File{f.Path, content})
	}
	return files, nil
}

// decrypted is one content, up to a byte more than a file may have.
func decrypted(identity *age.X25519Identity, sealed []byte) ([]byte, error) {
	r, err := age.Decrypt(bytes.NewReader(sealed), identity)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(r, MaxFile+1))
}
