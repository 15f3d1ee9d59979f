package main_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// TestEveryGoroutineIsContained walks every start of a goroutine in the product, by a go statement, by a group's Go or
// by a timer, and the callbacks that libraries call on goroutines of their own: each begins with package contain.
func TestEveryGoroutineIsContained(t *testing.T) {
	starts, complaints, err := walkStarts(os.DirFS("../.."))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range complaints {
		t.Error(c)
	}
	if len(starts) < 40 {
		t.Errorf("only %d starts were found: the walk misses some", len(starts))
	}
	for place := range uncontained {
		if !slices.Contains(starts, place) {
			t.Errorf("%s is excepted, and starts nothing any more: strike it off", place)
		}
	}
	for place := range owners {
		if !slices.Contains(starts, place) {
			t.Errorf("%s has an owner, and starts nothing any more: strike it off", place)
		}
	}
}

// uncontained is what need not begin with package contain, by file and function, and why.
var uncontained = map[string]string{}

// owners is who waits for a goroutine that a go statement starts, by file and function: a channel that is received
// from in its package. All other starts are by groups, which are waited for, and timers.
var owners = map[string]string{
	"gateway/backend/http2.go: interim":       "passing",
	"gateway/backend/sender.go: startSending": "over",
	"gateway/engine/loop.go: newLoop":         "ended",
	"gateway/observe/accesslog.go: Run":       "done",
	"gateway/wire/gather.go: write":           "", // it ends with its connection, whose Close bounds how long that takes
	"gateway/wire/tlscheck.go: tryVersion":    "shaken",
	"policy/token/run.go: Refresh":            "errs",
	"cmd/sallyport/serve.go: stopSignals":     "gone",
}

// notProduct is what is in no program that serves.
var notProduct = []string{"bench/", "cmd/sallybench/", "internal/testpki/", "internal/testserver/", "internal/testredis/", "internal/testdb/", "internal/testacme/", "certstore/certstoretest/", "internal/contain/"}

// foreign is the fields whose functions libraries call on goroutines of their own.
var foreign = []string{"DialContext", "DialTLSContext", "Got1xxResponse", "ConnContext", "ConnState", "BaseContext"}

func TestWalkStarts(t *testing.T) {
	const begin = "package p\n\nimport \"sallyport/internal/contain\"\n\n"
	for _, tt := range []struct {
		name, code string
		starts     int
		want       string // part of the only complaint; empty: none
	}{
		{"a literal", `func f() { g.Go(func() { defer faults.Catch("x", nil); work() }) }`, 1, ""},
		{"after what cannot panic", `func f() { g.Go(func() { mu.Lock(); defer mu.Unlock(); defer close(c); defer contain.Catch("x", nil) }) }`, 1, ""},
		{"a literal that calls one", `func f() { g.Go(func() { run(c) }) }; func run(c int) { defer faults.Catch("x", nil) }`, 1, ""},
		{"by Do", `func f() { g.Go(func() error { return faults.Do("x", work) }) }`, 1, ""},
		{"a method", `func f() { time.AfterFunc(d, s.look) }; func (s *S) look() { defer faults.Catch("x", nil) }`, 1, ""},
		{"a bare literal", `func f() { g.Go(func() { work() }) }`, 1, "p/p.go:5: f starts what does not begin with"},
		{"caught too late", `func f() { g.Go(func() { work(); defer faults.Catch("x", nil) }) }`, 1, "does not begin"},
		{"more beside Do", `func f() { g.Go(func() { _ = faults.Do("x", work); more() }) }`, 1, "does not begin"},
		{"a deferred call that may panic", `func f() { g.Go(func() { defer c.Sever(); defer faults.Catch("x", nil) }) }`, 1, "does not begin"},
		{"somebody else's method", `func f() { g.Go(client.Handshake) }`, 1, "does not begin"},
		{"a bare method", `func f() { time.AfterFunc(d, s.look) }; func (s *S) look() { work() }`, 1, "does not begin"},
		{"a callback", `var x = http.Server{ConnContext: func() { work() }}`, 1, "does not begin"},
		{"a collector", `func (e x) Collect(out chan<- int) { work() }`, 1, "does not begin"},
		{"nobody waits", `func f() { go func() { defer faults.Catch("x", nil) }() }`, 1, "nobody is said to wait"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			starts, complaints, err := walkStarts(fstest.MapFS{"p/p.go": {Data: []byte(begin + tt.code)}})
			if err != nil {
				t.Fatal(err)
			}
			if len(starts) != tt.starts {
				t.Errorf("starts: %q", starts)
			}
			if tt.want == "" && len(complaints) > 0 || tt.want != "" && (len(complaints) != 1 || !strings.Contains(complaints[0], tt.want)) {
				t.Errorf("complaints: %q, want %q", complaints, tt.want)
			}
		})
	}
}

// walkStarts returns the places that start goroutines, and what is wrong with them.
func walkStarts(module fs.FS) (starts, complaints []string, err error) {
	w := starter{files: token.NewFileSet(), rooms: map[string]map[string]*ast.File{}}
	err = fs.WalkDir(module, ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && name != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata"):
			return fs.SkipDir
		case d.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go"):
			return nil
		case slices.ContainsFunc(notProduct, func(p string) bool { return strings.HasPrefix(name, p) }):
			return nil
		}
		code, err := fs.ReadFile(module, name)
		if err != nil {
			return err
		}
		file, err := parser.ParseFile(w.files, name, code, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		room := path.Dir(name)
		if w.rooms[room] == nil {
			w.rooms[room] = map[string]*ast.File{}
		}
		w.rooms[room][name] = file
		return nil
	})
	for room, files := range w.rooms {
		for name, file := range files {
			w.walk(room, name, file)
		}
	}
	return w.starts, w.complaints, err
}

type starter struct {
	files      *token.FileSet
	rooms      map[string]map[string]*ast.File // by folder, then by name
	starts     []string                        // file and function
	complaints []string
}

func (w *starter) walk(room, name string, file *ast.File) {
	for _, d := range file.Decls {
		function := ""
		if f, ok := d.(*ast.FuncDecl); ok {
			if function = f.Name.Name; function == "Collect" && f.Recv != nil {
				w.start(room, name, function, f, f.Body)
			}
		}
		ast.Inspect(d, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt:
				w.start(room, name, function, n, n.Call.Fun)
				w.owned(room, name, function, n)
			case *ast.CallExpr:
				switch called := lastName(n.Fun); {
				case called == "Go" && len(n.Args) == 1, strings.HasSuffix(called, "AfterFunc") && len(n.Args) == 2,
					(called == "NewGaugeFunc" || called == "NewCounterFunc") && len(n.Args) == 2:
					w.start(room, name, function, n, n.Args[len(n.Args)-1])
				}
			case *ast.KeyValueExpr:
				if slices.Contains(foreign, lastName(n.Key)) {
					w.start(room, name, function, n, n.Value)
				}
			}
			return true
		})
	}
}

func (w *starter) start(room, name, function string, at, started ast.Node) {
	place := name + ": " + function
	w.starts = append(w.starts, place)
	if uncontained[place] == "" && !w.contained(room, started, 0) {
		w.complain(at, "%s starts what does not begin with a deferred contain.Catch", function)
	}
}

func (w *starter) complain(at ast.Node, format string, args ...any) {
	p := w.files.Position(at.Pos())
	w.complaints = append(w.complaints, fmt.Sprintf("%s:%d: ", p.Filename, p.Line)+fmt.Sprintf(format, args...))
}

// owned complains unless somebody waits for what a go statement starts.
func (w *starter) owned(room, name, function string, at *ast.GoStmt) {
	owner, known := owners[name+": "+function]
	if !known {
		w.complain(at, "nobody is said to wait for what %s starts: use a group, or name the owner", function)
	}
	if owner == "" {
		return
	}
	waits := false
	for _, file := range w.rooms[room] {
		ast.Inspect(file, func(n ast.Node) bool {
			u, ok := n.(*ast.UnaryExpr)
			waits = waits || ok && u.Op == token.ARROW && lastName(u.X) == owner
			return true
		})
	}
	if !waits {
		w.complain(at, "nothing in %s receives from %s, by which the end of what %s starts is told", room, owner, function)
	}
}

// contained reports whether a function, by its literal, its name or its body, begins with package contain: with a
// deferred Catch behind nothing that could panic, or as a single call, of Do or of such a function of its package.
func (w *starter) contained(room string, n ast.Node, depth int) bool {
	if depth > 3 {
		return false
	}
	switch n := n.(type) {
	case *ast.FuncLit:
		return w.contained(room, n.Body, depth)
	case *ast.Ident, *ast.SelectorExpr:
		found, well := false, true
		for _, file := range w.rooms[room] {
			for _, d := range file.Decls {
				if f, ok := d.(*ast.FuncDecl); ok && f.Name.Name == lastName(n) {
					found, well = true, well && w.contained(room, f.Body, depth+1)
				}
			}
		}
		return found && well
	case *ast.BlockStmt:
		if len(n.List) == 1 {
			if call := onlyCall(n.List[0]); call != nil {
				return lastName(call.Fun) == "Do" && len(call.Args) == 2 || lastName(call.Fun) == "Again" && len(call.Args) == 3 || w.contained(room, call.Fun, depth+1)
			}
		}
		for _, s := range n.List {
			if d, ok := s.(*ast.DeferStmt); ok && lastName(d.Call.Fun) == "Catch" {
				return true
			}
			if !harmless(s) {
				return false
			}
		}
	}
	return false
}

// onlyCall is the call that a statement consists of, besides what becomes of its result.
func onlyCall(s ast.Stmt) *ast.CallExpr {
	var x ast.Expr
	switch s := s.(type) {
	case *ast.ExprStmt:
		x = s.X
	case *ast.SendStmt:
		x = s.Value
	case *ast.ReturnStmt:
		if len(s.Results) == 1 {
			x = s.Results[0]
		}
	case *ast.AssignStmt:
		if len(s.Rhs) == 1 {
			x = s.Rhs[0]
		}
	}
	call, _ := x.(*ast.CallExpr)
	return call
}

// harmless reports whether a statement before the Catch cannot panic: the lock of a mutex and what ends it, the close
// of a channel that is closed here alone, a variable.
func harmless(s ast.Stmt) bool {
	switch s := s.(type) {
	case *ast.DeferStmt:
		return slices.Contains([]string{"close", "Unlock", "Done", "Release"}, lastName(s.Call.Fun))
	case *ast.ExprStmt:
		call, ok := s.X.(*ast.CallExpr)
		return ok && slices.Contains([]string{"Lock", "Gosched"}, lastName(call.Fun))
	case *ast.DeclStmt:
		return true
	}
	return false
}

func lastName(n ast.Node) string {
	switch n := n.(type) {
	case *ast.Ident:
		return n.Name
	case *ast.SelectorExpr:
		return n.Sel.Name
	}
	return ""
}
