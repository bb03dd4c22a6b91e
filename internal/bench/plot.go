package bench

import (
	"fmt"
	"io"
	"math"
	"time"
)

// Plot draws how launches grow, as SVG: for every size of the report one point
// per round, and a line through the middle ones.
func (r *Report) Plot(w io.Writer) {
	panels := []panel{
		{"launches per second", func(x Result) float64 { return x.PerSecond }},
		{"CPU per task, µs", func(x Result) float64 { return float64(x.CPUPerTask) / float64(time.Microsecond) }},
		{"live memory per task, bytes", func(x Result) float64 { return float64(perTask(x)) }},
	}
	fmt.Fprintf(w, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12">`+"\n",
		panelWidth*len(panels), panelHeight+40)
	fmt.Fprintf(w, `<rect width="100%%" height="100%%" fill="white"/>`+"\n")
	for i, p := range panels {
		fmt.Fprintf(w, `<g transform="translate(%d,20)">`+"\n", i*panelWidth)
		p.draw(w, r.Growth)
		fmt.Fprintln(w, "</g>")
	}
	fmt.Fprintln(w, "</svg>")
}

const (
	panelWidth, panelHeight = 320, 220
	plotLeft, plotRight     = 60, 300
	plotTop, plotBottom     = 24, 200
)

// panel is one curve over the number of tasks.
type panel struct {
	title string
	value func(Result) float64
}

func (p panel) draw(w io.Writer, growth [][]Result) {
	fmt.Fprintf(w, `<text x="%d" y="12" font-weight="bold">%s</text>`+"\n", plotLeft, p.title)
	low, high, top := bounds(growth, p.value)
	if top == 0 {
		return
	}
	x := func(n int) float64 {
		if high == low {
			return plotLeft
		}
		return plotLeft + (plotRight-plotLeft)*(math.Log10(float64(n))-low)/(high-low)
	}
	y := func(v float64) float64 { return plotBottom - (plotBottom-plotTop)*v/top }
	p.axes(w, growth, x, y, top)
	path := ""
	for _, rounds := range growth {
		if len(rounds) == 0 {
			continue
		}
		for _, r := range rounds {
			fmt.Fprintf(w, `<circle cx="%.1f" cy="%.1f" r="3" fill="#c60"/>`+"\n", x(r.Tasks), y(p.value(r)))
		}
		path += fmt.Sprintf("%.1f,%.1f ", x(rounds[0].Tasks), y(median(rounds, p.value)))
	}
	fmt.Fprintf(w, `<polyline points="%s" fill="none" stroke="#036" stroke-width="2"/>`+"\n", path)
}

// axes: the one of values begins at nothing, that of tasks is logarithmic.
func (p panel) axes(w io.Writer, growth [][]Result, x func(int) float64, y func(float64) float64, top float64) {
	fmt.Fprintf(w, `<path d="M%d %d V%d H%d" fill="none" stroke="#888"/>`+"\n", plotLeft, plotTop, plotBottom, plotRight)
	for _, part := range []float64{0, 0.5, 1} {
		fmt.Fprintf(w, `<text x="%d" y="%.1f" text-anchor="end">%.0f</text>`+"\n", plotLeft-6, y(top*part)+4, top*part)
	}
	for _, rounds := range growth {
		if len(rounds) > 0 {
			n := rounds[0].Tasks
			fmt.Fprintf(w, `<text x="%.1f" y="%d" text-anchor="middle">%s</text>`+"\n", x(n), plotBottom+16, count(n))
		}
	}
}

// count writes 1000 as 10³ where it is a power of ten.
func count(n int) string {
	if e := math.Log10(float64(n)); e == math.Trunc(e) && e < 10 {
		return "10" + string([]rune("⁰¹²³⁴⁵⁶⁷⁸⁹")[int(e)])
	}
	return fmt.Sprint(n)
}

// bounds are the decimal logarithms of the sizes and the largest value, rounded
// up to two digits.
func bounds(growth [][]Result, value func(Result) float64) (low, high, top float64) {
	low = math.Inf(1)
	for _, rounds := range growth {
		for _, r := range rounds {
			at := math.Log10(float64(max(1, r.Tasks)))
			low, high, top = min(low, at), max(high, at), max(top, value(r))
		}
	}
	if top > 0 {
		unit := math.Pow(10, math.Floor(math.Log10(top))-1)
		top = math.Ceil(top/unit) * unit
	}
	return low, high, top
}
