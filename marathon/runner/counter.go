package runner

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

const (
	mostMetrics = 8 << 20  // of an instance's answer
	mostCounter = 1 << 20  // of the lines of its counter
	mostLine    = 64 << 10 // of a line
)

// readCounter adds up all values of a counter in Prometheus' text format. The
// lines of other metrics are not looked at.
func readCounter(r io.Reader, metric string) (float64, error) {
	lines, err := linesOf(r, metric)
	if err != nil {
		return 0, err
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(lines))
	if err != nil {
		return 0, fmt.Errorf("the metric %s cannot be read: %w", metric, err)
	}
	family := families[metric]
	if len(family.GetMetric()) == 0 {
		return 0, fmt.Errorf("there is no metric %s", metric)
	}
	sum := 0.0
	for _, m := range family.GetMetric() {
		switch {
		case m.Counter != nil:
			sum += m.Counter.GetValue()
		case m.Untyped != nil: // without a TYPE line, or a histogram's count by itself
			sum += m.Untyped.GetValue()
		default:
			return 0, fmt.Errorf("the metric %s is a %s, not a counter", metric, family.GetType())
		}
	}
	if math.IsNaN(sum) || math.IsInf(sum, 0) || sum < 0 {
		return 0, fmt.Errorf("the metric %s is %v, which no counter can be", metric, sum)
	}
	return sum, nil
}

var errManyMetrics = errors.New("the answer is too long")

// linesOf picks a metric's samples and its type. No line of the format goes on in
// the next one.
func linesOf(r io.Reader, metric string) ([]byte, error) {
	limited := &io.LimitedReader{R: r, N: mostMetrics}
	s := bufio.NewScanner(limited)
	s.Buffer(nil, mostLine)
	var out bytes.Buffer
	for s.Scan() {
		if isOf(s.Bytes(), metric) {
			out.Write(s.Bytes())
			out.WriteByte('\n')
		}
		if out.Len() > mostCounter {
			return nil, errManyMetrics
		}
	}
	if limited.N == 0 {
		return nil, errManyMetrics
	}
	return out.Bytes(), s.Err()
}

func isOf(line []byte, metric string) bool {
	line = bytes.TrimLeft(line, " \t")
	if words := bytes.Fields(line[:min(len(line), mostName)]); len(words) > 2 && string(words[0]) == "#" && string(words[1]) == "TYPE" {
		return string(words[2]) == metric
	}
	rest, ok := bytes.CutPrefix(line, []byte(metric))
	return ok && len(rest) > 0 && (rest[0] == '{' || rest[0] == ' ' || rest[0] == '\t')
}

// mostName is where a TYPE line's name has ended.
const mostName = 1024
