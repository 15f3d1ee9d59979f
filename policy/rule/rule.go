// Package rule is what an API or a resource allows beyond credentials, as an expression in CEL: compiled when it is read,
// with a type and a bound for what it may cost, and evaluated for each call.
package rule

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
)

// Bounds of a rule.
const (
	MaxSource  = 4096    // bytes
	MaxPattern = 256     // bytes of a pattern that matches is called with
	maxProgram = 512     // instructions of its compiled form
	maxNodes   = 1000    // of an expression, with what its macros stand for
	maxDepth   = 32      // of its nesting
	maxCost    = 100_000 // in CEL's units, of which most operations take one and each ten characters of a text one more
	maxNetwork = 64      // bytes of a network, which none is longer than
)

// A Rule is a compiled expression. It never changes, and may be evaluated by many at once. Its zero value allows nothing.
type Rule struct {
	source  string
	program cel.Program
	uses    map[string]bool // its variables
}

// An Error is what is wrong with an expression, and where.
type Error struct {
	Line, Column int // from 1, in characters
	Problem      string
}

func (e *Error) Error() string { return fmt.Sprintf("%d:%d: %s", e.Line, e.Column, e.Problem) }

// environment has the variables and functions that expressions may use.
var environment = sync.OnceValues(func() (*cel.Env, error) {
	options := []cel.EnvOption{
		cel.ParserRecursionLimit(maxDepth),
		cel.ParserExpressionSizeLimit(MaxSource),
		cel.ParserErrorRecoveryLimit(4),
		cel.ExpressionNodeLimit(maxNodes),
		cel.ExpressionNestingDepthLimit(maxDepth),
		cel.RegexProgramSizeLimit(maxProgram),
		cel.DefaultUTCTimeZone(true),
		cel.EagerlyValidateDeclarations(true),
		cel.ASTValidators(
			cel.ValidateDurationLiterals(), cel.ValidateTimestampLiterals(), cel.ValidateRegexLiterals(),
			cel.ValidateHomogeneousAggregateLiterals(),
		),
		inNetwork(),
	}
	for _, v := range variables {
		options = append(options, cel.Variable(v.name, v.kind))
	}
	return cel.NewEnv(options...)
})

// Compile returns the rule that an expression is. What is wrong with it is an *Error.
func Compile(source string) (*Rule, error) {
	switch {
	case len(source) > MaxSource:
		return nil, &Error{1, 1, fmt.Sprintf("the expression is longer than %d bytes", MaxSource)}
	case strings.TrimSpace(source) == "":
		return nil, &Error{1, 1, "the expression is empty"}
	case !utf8.ValidString(source):
		return nil, &Error{1, 1, "the expression is no UTF-8"}
	}
	env, err := environment()
	if err != nil {
		return nil, fmt.Errorf("the environment of rules: %w", err)
	}
	parsed, issues := env.Parse(source)
	if err := firstOf(issues); err != nil {
		return nil, err
	}
	uses, patterns, err := inspect(parsed.NativeRep())
	if err != nil {
		return nil, err
	}
	price := prices{patterns}
	checked, issues := env.Check(parsed)
	if err := firstOf(issues); err != nil {
		return nil, err
	}
	if kind := checked.OutputType(); !kind.IsExactType(types.BoolType) {
		return nil, &Error{1, 1, fmt.Sprintf("the expression is to be true or false, and is of type %s", cel.FormatCELType(kind))}
	}
	cost, err := env.EstimateCost(checked, price)
	if err != nil {
		return nil, &Error{1, 1, "what the expression costs can't be told: " + err.Error()}
	}
	if cost.Max > maxCost {
		return nil, &Error{1, 1, fmt.Sprintf("the expression may cost %d units, and %d is the most: it goes through too much", cost.Max, maxCost)}
	}
	program, err := env.Program(checked, cel.EvalOptions(cel.OptOptimize), cel.CostTracking(price), cel.CostLimit(maxCost))
	if err != nil {
		return nil, &Error{1, 1, err.Error()}
	}
	return &Rule{source, program, uses}, nil
}

// firstOf is the first of the issues in the order of the text, or nil.
func firstOf(issues *cel.Issues) error {
	list := issues.Errors()
	if len(list) == 0 {
		return nil
	}
	first := slices.MinFunc(list, func(a, b *cel.Error) int {
		return cmp.Or(cmp.Compare(a.Location.Line(), b.Location.Line()), cmp.Compare(a.Location.Column(), b.Location.Column()))
	})
	problem, _, _ := strings.Cut(first.Message, " (in container ''")
	return &Error{max(first.Location.Line(), 1), max(first.Location.Column(), 0) + 1, problem}
}

// String is the expression.
func (r *Rule) String() string { return r.source }

// Equal reports whether both are the same expression, or both are nil.
func (r *Rule) Equal(other *Rule) bool {
	if r == nil || other == nil {
		return r == other
	}
	return r.source == other.source
}

// Uses reports whether the expression reads a variable, as in "path", or one of those that begin like "certificate.".
// No rule, nil, reads any.
func (r *Rule) Uses(variable string) bool {
	if r == nil {
		return false
	}
	if !strings.HasSuffix(variable, ".") {
		return r.uses[variable]
	}
	for v := range r.uses {
		if strings.HasPrefix(v, variable) {
			return true
		}
	}
	return false
}

var errNoRule = errors.New("there is no rule")

// Allows evaluates the rule. With an error, which is for operators alone, it allows nothing.
func (r *Rule) Allows(in *Input) (bool, error) {
	allowed, _, err := r.evaluate(in)
	return allowed, err
}

// AllowsEach evaluates the rule for a call with one path after the other, and reports whether it allows all of them. They
// may cost together what one may, and a little more than that. Without any it allows nothing.
func (r *Rule) AllowsEach(in *Input, paths iter.Seq[string]) (allowed bool, err error) {
	spent := uint64(0)
	for in.Path = range paths {
		if spent > maxCost {
			return false, errSpent
		}
		var cost uint64
		if allowed, cost, err = r.evaluate(in); !allowed {
			return false, err
		}
		spent += cost
	}
	return allowed, nil
}

var errSpent = errors.New("the path can be read in so many ways that the rule costs too much")

func (r *Rule) evaluate(in *Input) (allowed bool, cost uint64, err error) {
	if r == nil || r.program == nil {
		return false, 0, errNoRule
	}
	out, details, err := r.program.Eval((*activation)(in))
	if err != nil {
		return false, 0, err
	}
	if c := details.ActualCost(); c != nil {
		cost = *c
	}
	is, ok := out.(types.Bool)
	if !ok {
		return false, cost, fmt.Errorf("the rule is neither true nor false but %s", out.Type().TypeName())
	}
	return bool(is), cost, nil
}
