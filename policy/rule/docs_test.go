package rule

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"cel.dev/cel-go/cel"
)

// TestRulesPage: the page's examples are rules, its table has all variables with their types, and its bounds are those
// in force.
func TestRulesPage(t *testing.T) {
	data, err := os.ReadFile("../../docs/rules.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(data)
	examples := regexp.MustCompile("(?s)```cel\n(.*?)```").FindAllStringSubmatch(page, -1)
	if len(examples) < 6 {
		t.Errorf("%d examples", len(examples))
	}
	for _, e := range examples {
		if _, err := Compile(e[1]); err != nil {
			t.Errorf("%s: %v", e[1], err)
		}
	}
	var rows, want []string
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-zA-Z0-9.]+)` \\| ([a-z()]+) \\|").FindAllStringSubmatch(page, -1) {
		rows = append(rows, row[1]+" "+row[2])
	}
	for _, v := range variables {
		want = append(want, v.name+" "+strings.TrimPrefix(cel.FormatCELType(v.kind), "google.protobuf."))
	}
	for i := range want {
		want[i] = strings.Replace(want[i], "Timestamp", "timestamp", 1)
	}
	if !slices.Equal(rows, want) {
		t.Errorf("the table has\n%q, want\n%q", rows, want)
	}
	for _, bound := range []string{
		fmt.Sprintf("%d KiB of text, nested %d deep, 1,000 nodes", MaxSource>>10, maxDepth),
		fmt.Sprintf("at most %d bytes and %d instructions", MaxPattern, maxProgram),
		"100,000 of CEL's units, with a path of 8 KiB and lists of 64 names",
	} {
		if !strings.Contains(page, bound) {
			t.Errorf("the page does not say %q", bound)
		}
	}
	if maxNodes != 1000 || maxCost != 100_000 || longText != 8<<10 || someTexts != 64 {
		t.Error("bounds have changed: say so on the page")
	}
}
