package decision

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// TestRefusalsPage holds docs/refusals.md against the table of answers: each answer is a row of the page, word for word,
// and the page has no other rows.
func TestRefusalsPage(t *testing.T) {
	page, err := os.ReadFile("../../docs/refusals.md")
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for r, a := range answers {
		if Reason(r) != ClientGone { // which nobody gets
			want = append(want, fmt.Sprintf("| %d | %s | %s | `%s` |", a.status, a.code, a.message, a.name))
		}
	}
	rows := refusalRows(string(page))
	for _, w := range want {
		if !slices.Contains(rows, w) {
			t.Errorf("docs/refusals.md lacks the row %s", w)
		}
	}
	for i, r := range rows {
		if !slices.Contains(want, r) {
			t.Errorf("docs/refusals.md has the row %s, which the gateway never answers", r)
		}
		if slices.Contains(rows[:i], r) {
			t.Errorf("docs/refusals.md has the row %s twice", r)
		}
	}
}

// TestLimitsAreDocumented: the words of limits are those that the access log's schema and the operator's page know.
func TestLimitsAreDocumented(t *testing.T) {
	words := []string{string(DrainTimeout)}
	for _, l := range limits {
		words = append(words, string(l))
	}
	for _, f := range failures {
		words = append(words, string(f.limit))
	}
	slices.Sort(words)
	words = slices.Compact(words)[1:] // the first is none
	data, err := os.ReadFile("../../docs/accesslog.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	var schema struct {
		Properties map[string]struct{ Enum []string }
	}
	if err := json.Unmarshal(data, &schema); err != nil {
		t.Fatal(err)
	}
	if known := schema.Properties["limit"].Enum; !slices.Equal(known, words) {
		t.Errorf("the schema knows %q, the limits are %q", known, words)
	}
	page, err := os.ReadFile("../../docs/operating.md")
	if err != nil {
		t.Fatal(err)
	}
	_, said, _ := strings.Cut(string(page), "`limit`, the limit that ended it, by its key: ")
	said, _, _ = strings.Cut(said, "; ")
	told := strings.Split(strings.ReplaceAll(said, "`", ""), ", ")
	if slices.Sort(told); !slices.Equal(told, words) {
		t.Errorf("docs/operating.md knows %q, the limits are %q", told, words)
	}
}

// refusalRows returns the first four cells of each row of the page's tables, their heads apart.
func refusalRows(page string) []string {
	var rows []string
	for line := range strings.Lines(page) {
		cells := strings.Split(line, " | ")
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| status ") {
			continue
		}
		rows = append(rows, strings.Join(cells[:min(4, len(cells))], " | ")+" |")
	}
	return rows
}
