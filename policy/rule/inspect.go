package rule

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/cost"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
)

// roots are the first words of variables: "certificate", "path".
var roots = func() map[string]bool {
	m := map[string]bool{}
	for _, v := range variables {
		root, _, _ := strings.Cut(v.name, ".")
		m[root] = true
	}
	return m
}()

// An inspector looks at an expression before its types are checked: for what CEL would allow and a call can't wait for,
// and for what CEL would complain about in its own words.
type inspector struct {
	tree     *ast.AST
	uses     map[string]bool
	operands map[int64]bool // ids of "certificate" in "certificate.subject"
	patterns int            // instructions of the largest pattern
	problem  error          // the first
}

// inspect returns the variables that an expression reads, and the size of its largest pattern.
func inspect(tree *ast.AST) (uses map[string]bool, patterns int, problem error) {
	i := &inspector{tree: tree, uses: map[string]bool{}, operands: map[int64]bool{}}
	ast.PreOrderVisit(tree.Expr(), ast.NewExprVisitor(i.visit))
	return i.uses, i.patterns, i.problem
}

func (i *inspector) errorf(e ast.Expr, format string, args ...any) {
	if i.problem == nil {
		at := i.tree.SourceInfo().GetStartLocation(e.ID())
		i.problem = &Error{max(at.Line(), 1), max(at.Column(), 0) + 1, fmt.Sprintf(format, args...)}
	}
}

func (i *inspector) visit(e ast.Expr) {
	switch e.Kind() {
	case ast.IdentKind:
		i.ident(e)
	case ast.SelectKind:
		i.selection(e)
	case ast.CallKind:
		i.call(e)
	case ast.ComprehensionKind:
		c := e.AsComprehension()
		for _, name := range []string{c.IterVar(), c.IterVar2()} {
			if roots[name] {
				i.errorf(e, "%s is a variable of rules: give the elements another name", name)
			}
		}
	case ast.StructKind:
		i.errorf(e, "a rule builds no messages")
	}
}

func (i *inspector) ident(e ast.Expr) {
	name := strings.TrimPrefix(e.AsIdent(), ".")
	switch {
	case i.operands[e.ID()]:
	case byName[name] != nil:
		i.uses[name] = true
	case roots[name]:
		i.errorf(e, "%s is no value of its own: say what of it, as in %s.present", name, name)
	}
}

func (i *inspector) selection(e ast.Expr) {
	s := e.AsSelect()
	if s.Operand().Kind() != ast.IdentKind {
		return
	}
	root := strings.TrimPrefix(s.Operand().AsIdent(), ".")
	if !roots[root] || byName[root] != nil { // types are for the checker
		return
	}
	i.operands[s.Operand().ID()] = true
	name := root + "." + s.FieldName()
	switch {
	case byName[name] == nil:
		i.errorf(e, "there is no %s: it has %s", name, strings.Join(fieldsOf(root), ", "))
	case s.IsTestOnly():
		i.errorf(e, "has() is not for %s: ask for %s.present", root, root)
	default:
		i.uses[name] = true
	}
}

// fieldsOf are the names behind the dot of variables, sorted.
func fieldsOf(root string) (fields []string) {
	for _, v := range variables {
		if field, ok := strings.CutPrefix(v.name, root+"."); ok {
			fields = append(fields, field)
		}
	}
	slices.Sort(fields)
	return fields
}

func (i *inspector) call(e ast.Expr) {
	call := e.AsCall()
	args := call.Args()
	switch function := call.FunctionName(); {
	case function == matchFunction:
		if len(args) > 0 {
			i.pattern(args[len(args)-1])
		}
	case function == networkFunction && len(args) == 2:
		i.network(args[1])
	case strings.HasPrefix(function, "get") && len(args) == 1 && call.IsMemberFunction():
		i.zone(args[0])
	}
}

func (i *inspector) pattern(e ast.Expr) {
	switch text, ok := literal(e); {
	case !ok:
		i.errorf(e, "the pattern of matches is to be a text in quotes, so that it can be compiled now")
	case len(text) > MaxPattern:
		i.errorf(e, "the pattern of matches is longer than %d bytes", MaxPattern)
	default:
		size, err := types.RegexProgramSize(text)
		switch {
		case err != nil:
			i.errorf(e, "the pattern of matches is none: %v", err)
		case size > maxProgram:
			i.errorf(e, "the pattern of matches takes %d instructions, and %d are the most: repeat less", size, maxProgram)
		}
		i.patterns = max(i.patterns, size)
	}
}

func (i *inspector) network(e ast.Expr) {
	text, ok := literal(e)
	if !ok {
		i.errorf(e, `the network of %s is to be a text in quotes, as in "10.0.0.0/8"`, networkFunction)
		return
	}
	if _, err := parseNetwork(text); err != nil {
		i.errorf(e, "%v", err)
	}
}

// offset is a time zone that no file has to be read for.
var offset = regexp.MustCompile(`^(UTC|[+-]([01]\d|2[0-3]):[0-5]\d)$`)

func (i *inspector) zone(e ast.Expr) {
	if text, ok := literal(e); !ok || !offset.MatchString(text) {
		i.errorf(e, `a time zone is to be "UTC" or a distance from it in quotes, as in "+01:00"`)
	}
}

func literal(e ast.Expr) (string, bool) {
	if e.Kind() != ast.LiteralKind {
		return "", false
	}
	text, ok := e.AsLiteral().(types.String)
	return string(text), ok
}

const networkFunction = "inNetwork"

// inNetwork declares inNetwork(ADDRESS, NETWORK).
func inNetwork() cel.EnvOption {
	const overload = "in_network_string_string"
	return cel.Lib(library{[]cel.EnvOption{
		cel.Function(networkFunction, cel.Overload(overload, []*cel.Type{cel.StringType, cel.StringType}, cel.BoolType,
			cel.BinaryBinding(func(address, network ref.Val) ref.Val {
				a, ok := address.(types.String)
				n, isText := network.(types.String)
				if !ok || !isText {
					return types.NewErr("%s is for texts", networkFunction)
				}
				return contains(string(n), string(a))
			}))),
		cel.CostModel(cost.Overload(overload, cost.EvalCost(cost.Const(networkCost)))),
	}})
}

const networkCost = 10

type library struct{ options []cel.EnvOption }

func (l library) CompileOptions() []cel.EnvOption     { return l.options }
func (l library) ProgramOptions() []cel.ProgramOption { return nil }

// contains reports whether an address is in a network. What is no address is an error: its negation holds no more.
func contains(network, address string) ref.Val {
	n, err := parseNetwork(network)
	if err != nil {
		return types.WrapErr(err)
	}
	a, err := netip.ParseAddr(address)
	if err != nil {
		return types.NewErr("%s: the address is none", networkFunction)
	}
	return types.Bool(n.Contains(a.Unmap().WithZone("")))
}

// parseNetwork reads a network in CIDR notation.
func parseNetwork(text string) (netip.Prefix, error) {
	n, err := netip.ParsePrefix(text)
	switch {
	case err != nil || len(text) > maxNetwork:
		return n, fmt.Errorf(`a network is to be an address and a length, as in "10.0.0.0/8" or "2001:db8::/32"`)
	case n.Addr().Is4In6():
		return n, fmt.Errorf("a network of IPv4 is to be written as one: %s", n.Addr().Unmap())
	case n != n.Masked():
		return n, fmt.Errorf("the network has bits beyond its length: write %s", n.Masked())
	}
	return n, nil
}
