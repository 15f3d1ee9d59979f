package decision

import (
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
