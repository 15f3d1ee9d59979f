package main_test

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
)

const module = "sallyport"

// everything lets a program import any room but those of other programs.
const everything = "everything but cmd"

// rooms lists the rooms that each room may import: from the story to the details, never back. A folder that is not listed
// belongs to the room above it. Rooms that are not built yet are listed already.
var rooms = map[string][]string{
	"cmd/sallyport":                     {everything, "cmd/sallyport/internal/config", "cmd/sallyport/internal/quickstart", "cmd/sallyport/internal/migrate"},
	"cmd/sallyport/internal/config":     {everything},
	"cmd/sallyport/internal/quickstart": {everything, "cmd/sallyport/internal/config"},
	"cmd/sallyport/internal/migrate":    {everything, "cmd/sallyport/internal/config"},
	"cmd/sallybench":                    {everything},

	"gateway/control": {
		"gateway", "gateway/decision", "gateway/backend", "gateway/clientcert", "gateway/message", "policy", "policy/certrule", "policy/token", "policy/ratelimit", "policy/subscription",
		"certstore", "certstore/revocation", "listenerprofiles", "listenerprofiles/keystore", "listenerprofiles/trust", "listenerprofiles/acme",
		"listenerprofiles/challenge", "listenerprofiles/revocation",
	},
	"gateway/observe": {
		"gateway", "gateway/decision", "gateway/backend", "gateway/clientcert", "gateway/message", "policy", "policy/token", "policy/ratelimit", "policy/subscription",
		"certstore", "certstore/revocation", "listenerprofiles",
	},
	"gateway": {
		"gateway/engine", "gateway/decision", "gateway/backend", "gateway/http1", "gateway/wire", "gateway/message", "gateway/proxyproto", "listenerprofiles",
		"listenerprofiles/trust",
	},
	"gateway/engine": {"gateway/decision", "gateway/backend", "gateway/http1", "gateway/wire", "gateway/message"},
	"gateway/decision": {
		"gateway/backend", "gateway/http1", "gateway/message", "gateway/clientcert", "policy", "policy/certrule", "policy/token", "policy/ratelimit", "policy/rule", "policy/subscription",
		"certstore", "certstore/revocation", "listenerprofiles", "listenerprofiles/challenge", "listenerprofiles/trust",
	},
	"gateway/backend":        {"gateway/http1", "gateway/wire", "gateway/message", "listenerprofiles/trust"},
	"gateway/http1":          {"gateway/message"},
	"gateway/clientcert":     {"gateway/message", "listenerprofiles/trust", "policy/certrule"},
	"listenerprofiles":       {"listenerprofiles/keystore", "listenerprofiles/trust", "listenerprofiles/revocation"},
	"listenerprofiles/trust": {"listenerprofiles/keystore", "listenerprofiles/revocation"},
	"listenerprofiles/acme":  {"listenerprofiles", "listenerprofiles/challenge", "certstore"},

	"gateway/wire":               nil,
	"gateway/message":            nil,
	"gateway/proxyproto":         nil,
	"policy":                     nil,
	"policy/certrule":            nil,
	"policy/token":               nil,
	"policy/ratelimit":           nil,
	"policy/rule":                nil,
	"policy/subscription":        nil,
	"certstore":                  {"policy/certrule"},
	"certstore/revocation":       nil,
	"listenerprofiles/keystore":  nil,
	"listenerprofiles/challenge": nil,

	"listenerprofiles/revocation": nil,

	"bench":      {"bench/port"},
	"bench/port": nil,

	"internal/testpki":        nil,
	"internal/testserver":     {"bench/port"},
	"internal/testredis":      {"internal/testpki", "internal/testserver"},
	"internal/testdb":         {"internal/testpki", "internal/testserver"},
	"internal/testacme":       {"internal/testpki", "internal/testserver"},
	"internal/typed":          nil,
	"certstore/certstoretest": {"certstore", "policy/certrule", "internal/testpki"},

	"internal/eachfield":   nil, // for tests
	"internal/contain":     nil,
	"internal/ends":        nil,
	"internal/fileset":     {"internal/regularfile"},
	"internal/printable":   nil,
	"internal/regularfile": nil,
	"internal/secret":      nil,
}

// leaves is the folder of the rooms that every room may import, except pure policy, and that import nothing of ours.
const leaves = "internal/"

// testRooms may be imported only by tests and by each other, so that they are in no program.
var testRooms = []string{"internal/testpki", "internal/testserver", "internal/testredis", "internal/testdb", "internal/testacme", "internal/typed", "certstore/certstoretest"}

// Two rules for packages of others.
const (
	standardLibraryOnly = "policy"                        // its decision is pure
	yamlLibrary         = "github.com/goccy/go-yaml"      // is imported
	yamlRoom            = "cmd/sallyport/internal/config" // by this room alone
)

func TestImportsRunFromTheStoryToTheDetails(t *testing.T) {
	broken, err := brokenImports(os.DirFS("../.."))
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range broken {
		t.Error(b)
	}
}

func TestRoomsAreInOrder(t *testing.T) {
	var visit func(room string, above []string)
	visit = func(room string, above []string) {
		if slices.Contains(above, room) {
			t.Fatalf("rooms import each other in a ring: %s -> %s", strings.Join(above, " -> "), room)
		}
		for _, r := range rooms[room] {
			if r == everything {
				continue
			}
			if _, ok := rooms[r]; !ok {
				t.Errorf("room %s may import %s, which is no room", room, r)
			}
			visit(r, append(slices.Clone(above), room))
		}
	}
	for room := range rooms {
		visit(room, nil)
	}
}

func TestBrokenImports(t *testing.T) {
	for _, tt := range []struct {
		name string
		file string
		code string
		want string // part of the only complaint; empty: no complaint
	}{
		{"a leaf alone", "policy/policy.go", `import "crypto/x509"`, ""},
		{"a leaf imports the story", "policy/policy.go", `import "sallyport/gateway"`, "policy/policy.go imports sallyport/gateway: policy may import nothing of ours"},
		{"a leaf imports a leaf", "policy/ratelimit/local.go", `import "sallyport/policy"`, "policy/ratelimit may import nothing of ours"},
		{"a room's own folder", "certstore/store.go", `import "sallyport/certstore/sqlite"`, ""},
		{"from a room's own folder", "certstore/sqlite/open.go", `import "sallyport/certstore"`, ""},
		{"from a room's own folder to another room", "certstore/sqlite/open.go", `import "sallyport/policy"`, "certstore may import only policy/certrule"},
		{"a detail", "gateway/http1/serve.go", `import "sallyport/gateway/message"`, ""},
		{"back to the story", "gateway/http1/serve.go", `import "sallyport/gateway"`, "gateway/http1 may import only gateway/message"},
		{"under another name", "gateway/http1/serve.go", `import g "sallyport/gateway"`, "imports sallyport/gateway"},
		{"past a room to its details", "gateway/listeners.go", `import "sallyport/listenerprofiles/keystore"`, "gateway may import only"},
		{"the control side from the data side", "gateway/gateway.go", `import "sallyport/gateway/control"`, "gateway may import only"},
		{"the data side from the control side", "gateway/control/admin/admin.go", `import "sallyport/gateway"`, ""},
		{"a program", "cmd/sallyport/main.go", `import "sallyport/gateway/observe"`, ""},
		{"another program", "cmd/sallybench/main.go", `import "sallyport/cmd/sallyport/internal/config"`, "cmd/sallybench may import"},
		{"a program from a room", "gateway/gateway.go", `import "sallyport/cmd/sallyport/internal/config"`, "gateway may import only"},
		{"a room that isn't there", "gateway/gateway.go", `import "sallyport/utils"`, "sallyport/utils, which is no room"},
		{"in a room that isn't there", "utils/utils.go", ``, "utils/utils.go is in no room"},
		{"in no room", "sallyport.go", ``, "sallyport.go is in no room"},
		{"the module itself", "gateway/gateway.go", `import "sallyport"`, "which is no room"},
		{"a leaf from a room without rooms", "policy/token/fetch.go", `import "sallyport/internal/regularfile"`, ""},
		{"a leaf from a program's room", "cmd/sallyport/internal/config/load.go", `import "sallyport/internal/regularfile"`, ""},
		{"a leaf from policy", "policy/words.go", `import "sallyport/internal/regularfile"`, "policy may import nothing of ours"},
		{"a room from a leaf", "internal/regularfile/read.go", `import "sallyport/certstore"`, "internal/regularfile may import nothing of ours"},
		{"a module whose name begins like ours", "bench/bench.go", `import "sallyports/gateway"`, ""},
		{"a library in policy", "policy/policy.go", `import "golang.org/x/time/rate"`, "policy may import the standard library only"},
		{"a library in policy's neighbour", "policy/token/jwt.go", `import "github.com/golang-jwt/jwt/v5"`, ""},
		{"a test's room in a program", "cmd/sallyport/main.go", `import "sallyport/internal/testpki"`, "imports sallyport/internal/testpki: only tests may"},
		{"a test's room in the room it tests", "certstore/store.go", `import "sallyport/certstore/certstoretest"`, "only tests may"},
		{"a test's room in a test's room", "certstore/certstoretest/run.go", `import "sallyport/internal/testpki"`, ""},
		{"a test's room in a test", "certstore/store_test.go", `import "sallyport/internal/testpki"`, ""},
		{"YAML where it belongs", "cmd/sallyport/internal/config/parse.go", `import "github.com/goccy/go-yaml/ast"`, ""},
		{"YAML elsewhere", "gateway/route.go", `import "github.com/goccy/go-yaml"`, "cmd/sallyport/internal/config alone knows YAML"},
		{"a test", "policy/policy_test.go", `import "sallyport/gateway"`, ""},
		{"test data", "policy/testdata/x.go", `import "sallyport/gateway"`, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			broken, err := brokenImports(fstest.MapFS{
				tt.file: {Data: []byte("package x\n" + tt.code + "\n")},
			})
			if err != nil {
				t.Fatal(err)
			}
			if tt.want == "" && len(broken) > 0 {
				t.Fatalf("complains: %q", broken)
			}
			if tt.want != "" && (len(broken) != 1 || !strings.Contains(broken[0], tt.want)) {
				t.Fatalf("got %q, want one complaint with %q", broken, tt.want)
			}
		})
	}
}

// brokenImports reads every Go file that is not a test, and returns a line for each import that breaks a rule.
func brokenImports(tree fs.FS) (broken []string, err error) {
	err = fs.WalkDir(tree, ".", func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if ignored(entry.Name()) || file != "." && ownModule(tree, file) {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
			return nil
		}
		room := roomOf(path.Dir(file))
		if room == "" {
			broken = append(broken, fmt.Sprintf("%s is in no room: say in this test what its folder may import", file))
			return nil
		}
		imports, err := importsOf(tree, file)
		for _, imported := range imports {
			if rule := brokenRule(room, imported); rule != "" {
				broken = append(broken, fmt.Sprintf("%s imports %s%s", file, imported, rule))
			}
		}
		return err
	})
	return broken, err
}

// ignored reports whether the go command ignores a folder, too.
func ignored(folder string) bool {
	return folder != "." && strings.HasPrefix(folder, ".") || strings.HasPrefix(folder, "_") || folder == "testdata" || folder == "vendor"
}

func ownModule(tree fs.FS, folder string) bool {
	_, err := fs.Stat(tree, path.Join(folder, "go.mod"))
	return err == nil
}

func importsOf(tree fs.FS, file string) ([]string, error) {
	code, err := fs.ReadFile(tree, file)
	if err != nil {
		return nil, err
	}
	parsed, err := parser.ParseFile(token.NewFileSet(), file, code, parser.ImportsOnly)
	if err != nil {
		return nil, err
	}
	var imports []string
	for _, spec := range parsed.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return nil, fmt.Errorf("%s: import %s: %w", file, spec.Path.Value, err)
		}
		imports = append(imports, imported)
	}
	return imports, nil
}

// roomOf returns the room that a folder belongs to, or "" for none.
func roomOf(folder string) string {
	for ; folder != "."; folder = path.Dir(folder) {
		if _, ok := rooms[folder]; ok {
			return folder
		}
	}
	return ""
}

// brokenRule returns the rule that an import breaks, worded to follow the import's name, or "" if it breaks none.
func brokenRule(room, imported string) string {
	if imported != module && !strings.HasPrefix(imported, module+"/") {
		first, _, _ := strings.Cut(imported, "/")
		switch {
		case room == standardLibraryOnly && strings.Contains(first, "."):
			return ": " + room + " may import the standard library only"
		case (imported == yamlLibrary || strings.HasPrefix(imported, yamlLibrary+"/")) && room != yamlRoom:
			return ": " + yamlRoom + " alone knows YAML"
		}
		return ""
	}
	to := roomOf(path.Clean(strings.TrimPrefix(strings.TrimPrefix(imported, module), "/")))
	may := rooms[room]
	switch {
	case to == "":
		return ", which is no room: say in this test what it may import and who may import it"
	case slices.Contains(testRooms, to) && !slices.Contains(testRooms, room):
		return ": only tests may"
	case to == room, slices.Contains(may, to):
		return ""
	case strings.HasPrefix(to, leaves) && !strings.HasPrefix(room, leaves) && room != standardLibraryOnly:
		return ""
	case slices.Contains(may, everything) && !strings.HasPrefix(to, "cmd/"):
		return ""
	case len(may) == 0:
		return ": " + room + " may import nothing of ours"
	}
	return ": " + room + " may import only " + strings.Join(may, ", ")
}
