package peer

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// maxMetrics limits the size of the metrics in bytes.
const maxMetrics = 16 << 20

// Metrics reads Sallyport's metrics by name. A name without labels gets the sum over all labels, an unknown name 0.
func (g *Gateway) Metrics(ctx context.Context, names ...string) ([]float64, error) {
	query := url.Values{} // leaves out the other metrics; older builds ignore it
	for _, name := range names {
		family, _, _ := strings.Cut(name, "{")
		query.Add("name[]", family)
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+g.Status+"/metrics?"+query.Encode(), nil)
	if err != nil {
		return nil, fmt.Errorf("metrics of %s: %w", g.Name, err)
	}
	// Compressing the answer would cost the gateway CPU.
	request.Header.Set("Accept-Encoding", "identity")
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, fmt.Errorf("metrics of %s: %w", g.Name, err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxMetrics))
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d, %.200q", answer.StatusCode, text)
	}
	var values []float64
	if err == nil {
		values, err = parseMetrics(text, names)
	}
	if err != nil {
		return nil, fmt.Errorf("metrics of %s: %w", g.Name, err)
	}
	return values, nil
}

// parseMetrics reads the lines NAME VALUE and NAME{LABELS} VALUE of Prometheus' text format.
func parseMetrics(text []byte, names []string) ([]float64, error) {
	values := make([]float64, len(names))
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		line := lines.Text()
		for i, name := range names {
			rest, ok := strings.CutPrefix(line, name)
			if !ok || rest == "" || rest[0] != ' ' && rest[0] != '{' {
				continue
			}
			value, err := strconv.ParseFloat(rest[strings.LastIndexByte(rest, ' ')+1:], 64)
			if err != nil {
				return nil, fmt.Errorf("line %.100q", line)
			}
			values[i] += value
		}
	}
	return values, lines.Err()
}
