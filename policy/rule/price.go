package rule

import (
	"cel.dev/cel-go/common/cost"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
)

// prices are what CEL can't know of what an expression costs: how large the values of variables may be, and what patterns
// take. CEL goes by the length of a pattern, and few characters may stand for many instructions.
type prices struct {
	instructions int // of the expression's largest pattern
}

// perInstruction is the price of one instruction for each character: ten of them take about the time of one unit.
const perInstruction = 0.1

const matchFunction = "matches"

// EstimateSize implements cost.Estimator.
func (prices) EstimateSize(n cost.AstNode) *cost.SizeEstimate {
	path := n.Path()
	if len(path) == 0 {
		return nil
	}
	v := byName[path[0]]
	if v == nil {
		return nil
	}
	var size cost.SizeEstimate
	switch inList := v.kind == texts; {
	case inList && len(path) == 1:
		size = cost.ListSizeEstimate(cost.RangedSizeEstimate(0, someTexts), cost.RangedSizeEstimate(0, v.size))
	case v.size > 0:
		size = cost.RangedSizeEstimate(0, v.size)
	default:
		return nil
	}
	return &size
}

// EstimateCallCost implements cost.Estimator.
func (p prices) EstimateCallCost(function, _ string, target *cost.AstNode, args []cost.AstNode) *cost.CallEstimate {
	if function != matchFunction {
		return nil
	}
	text := target
	if text == nil && len(args) > 0 {
		text = &args[0]
	}
	if text == nil {
		return nil
	}
	price := cost.EstimateSize(p, *text).MultiplyByCostFactor(perInstruction * float64(p.instructions))
	return &cost.CallEstimate{CostEstimate: price.Add(cost.FixedCostEstimate(1))}
}

// CallCost implements cost.ActualCostEstimator.
func (p prices) CallCost(function, _ string, args []ref.Val, _ ref.Val) *uint64 {
	if function != matchFunction || len(args) == 0 {
		return nil
	}
	text, ok := args[0].(types.String)
	if !ok {
		return nil
	}
	price := 1 + uint64(perInstruction*float64(p.instructions)*float64(len(text)))
	return &price
}
