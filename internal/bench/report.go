package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"
	"time"
)

// ReportOptions are what a report measures. Every measurement is a process of
// its own, so that none sees the memory of another.
type ReportOptions struct {
	Sizes   []int         // launches of so many tasks, ascending
	Rounds  int           // of each measurement
	Idle    time.Duration // how long the largest is watched while nothing happens
	Recover int           // tasks when the agent is restarted
	Agents  int           // agents of the master's measurement
	Engine  []int         // launches at a time on the engine; nil: no engine is measured
	Command func(ctx context.Context, args ...string) ([]byte, error)
	Say     func(text string)
}

// Report is everything that one run has shown.
type Report struct {
	Date    time.Time        `json:"date"`
	Machine string           `json:"machine"`
	Growth  [][]Result       `json:"growth"`   // by size, then by round
	Recover []Result         `json:"recovery"` // by round
	Master  []MasterResult   `json:"master"`   // by round
	Engine  []EngineFindings `json:"engine,omitempty"`
}

// EngineFindings are the rounds at one concurrency: bare, ours, bare, ours, ….
type EngineFindings struct {
	AtOnce int      `json:"at_once"`
	Bare   []Result `json:"bare"`
	Ours   []Result `json:"ours"`
}

// single is what a child process prints.
type single struct {
	Results []Result `json:"results"`
}

// MakeReport measures everything, one after the other.
func MakeReport(ctx context.Context, o ReportOptions) (*Report, error) {
	r := &Report{Date: time.Now().UTC(), Machine: machine()}
	for _, step := range []func(context.Context, ReportOptions) error{r.grow, r.recover, r.agents, r.engine} {
		if err := step(ctx, o); err != nil {
			return r, err
		}
	}
	return r, nil
}

// grow launches more and more tasks; the largest is watched afterwards.
func (r *Report) grow(ctx context.Context, o ReportOptions) error {
	for i, n := range o.Sizes {
		args := []string{"bench", "--durable", "--tasks", strconv.Itoa(n), "--in-flight", strconv.Itoa(min(2000, max(100, n/10)))}
		if i == len(o.Sizes)-1 {
			args = append(args, "--idle", o.Idle.String())
		}
		rounds, err := o.launches(ctx, fmt.Sprintf("%d tasks", n), args)
		if err != nil {
			return err
		}
		r.Growth = append(r.Growth, rounds)
	}
	return nil
}

func (r *Report) recover(ctx context.Context, o ReportOptions) (err error) {
	r.Recover, err = o.launches(ctx, fmt.Sprintf("recovery of %d tasks", o.Recover),
		[]string{"bench", "--durable", "--restart", "--tasks", strconv.Itoa(o.Recover), "--idle", o.Idle.String()})
	return err
}

// launches runs one measurement for so many rounds.
func (o ReportOptions) launches(ctx context.Context, what string, args []string) ([]Result, error) {
	var rounds []Result
	for n := range o.Rounds {
		o.Say(fmt.Sprintf("%s, round %d of %d", what, n+1, o.Rounds))
		var one single
		if err := o.measure(ctx, &one, args...); err != nil {
			return nil, err
		}
		if err := whole(one.Results); err != nil {
			return nil, err
		}
		rounds = append(rounds, one.Results...)
	}
	return rounds, nil
}

func (o ReportOptions) measure(ctx context.Context, into any, args ...string) error {
	text, err := o.Command(ctx, append(args, "--json")...)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, into)
}

// whole complains about results that are not of all tasks.
func whole(results []Result) error {
	for _, r := range results {
		if r.Failed > 0 {
			return fmt.Errorf("%s: %d of %d tasks failed, the first with: %s", r.Name, r.Failed, r.Failed+r.Tasks, r.FirstFail)
		}
	}
	return nil
}

func (r *Report) agents(ctx context.Context, o ReportOptions) error {
	for n := range o.Rounds {
		o.Say(fmt.Sprintf("a master with %d agents, round %d of %d", o.Agents, n+1, o.Rounds))
		var one []MasterResult
		err := o.measure(ctx, &one, "bench", "master", "--agents", strconv.Itoa(o.Agents), "--tasks", strconv.Itoa(10*o.Agents))
		if err != nil {
			return err
		}
		r.Master = append(r.Master, one...)
	}
	return nil
}

// engine measures bare and ours in turn, so that a drift of the engine shows.
func (r *Report) engine(ctx context.Context, o ReportOptions) error {
	for _, atOnce := range o.Engine {
		f := EngineFindings{AtOnce: atOnce}
		for n := range o.Rounds {
			o.Say(fmt.Sprintf("the engine, %d at a time, round %d of %d", atOnce, n+1, o.Rounds))
			var one single
			err := o.measure(ctx, &one, "bench", "--provider", "docker", "--in-flight", strconv.Itoa(atOnce), "--tasks", "48")
			if err != nil {
				return err
			}
			if err := whole(one.Results); err != nil {
				return err
			}
			for _, x := range one.Results {
				if x.Name == bareLoop {
					f.Bare = append(f.Bare, x)
				} else {
					f.Ours = append(f.Ours, x)
				}
			}
		}
		r.Engine = append(r.Engine, f)
	}
	return nil
}

// Write prints the report as Markdown.
func (r *Report) Write(w io.Writer) {
	fmt.Fprintf(w, "Measured on %s: %s.\nWhere there were several rounds: the middle one (the smallest – the largest).\n", r.Date.Format(time.DateOnly), r.Machine)
	r.writeGrowth(w)
	r.writeRecovery(w)
	if len(r.Master) > 0 {
		fmt.Fprintf(w, "\n## A master with %d agents, %d tasks, %d frameworks\n\n", r.Master[0].Agents, r.Master[0].Tasks, r.Master[0].Frameworks)
		table(w, []string{"", ""}, masterRows(r.Master))
	}
	r.writeEngine(w)
}

func masterRows(rounds []MasterResult) [][]string {
	var rows [][]string
	for _, l := range masterLines(rounds) {
		rows = append(rows, []string{l.name, l.value})
	}
	return rows
}

func (r *Report) writeGrowth(w io.Writer) {
	fmt.Fprint(w, "\n## Launches on a simulated data center of 5 000 hosts\n\n")
	var rows [][]string
	for _, rounds := range r.Growth {
		if len(rounds) == 0 {
			continue
		}
		rows = append(rows, []string{
			strconv.Itoa(rounds[0].Tasks),
			spread(rounds, func(x Result) time.Duration { return x.Acknowledged }, durationText),
			spread(rounds, func(x Result) float64 { return x.PerSecond }, perSecond),
			spread(rounds, func(x Result) time.Duration { return x.CPUPerTask }, durationText),
			spread(rounds, func(x Result) time.Duration { return x.P50 }, durationText),
			spread(rounds, func(x Result) time.Duration { return x.P99 }, durationText),
			spread(rounds, perTask, bytesText),
			spread(rounds, func(x Result) int64 { return int64(x.Usage.Peak) }, bytesText),
		})
	}
	table(w, []string{"tasks", "all running and acknowledged", "launches", "CPU per task", "p50", "p99", "live memory per task", "most resident"}, rows)
	if n := len(r.Growth); n > 0 && len(r.Growth[n-1]) > 0 {
		last := r.Growth[n-1]
		fmt.Fprintf(w, "\nWith %d tasks running and nothing happening: %s of one core.\n", last[0].Tasks,
			spread(last, func(x Result) float64 { return x.Idle }, percent))
	}
}

func perTask(x Result) int64 { return int64(x.Usage.Live) / int64(max(1, x.Tasks)) }

func (r *Report) writeRecovery(w io.Writer) {
	if len(r.Recover) == 0 {
		return
	}
	fmt.Fprintf(w, "\n## Recovery of an agent with %d containers\n\nFrom its start to its re-registration with all tasks: %s. Before that, idle: %s of one core.\n",
		r.Recover[0].Tasks, spread(r.Recover, func(x Result) time.Duration { return x.Recovery.Took }, durationText),
		spread(r.Recover, func(x Result) float64 { return x.Idle }, percent))
	fmt.Fprintf(w, "Pings meanwhile: %s answered, the longest wait %s. Memory of the agent: %s a task, of which its description is %s.\n",
		spread(r.Recover, func(x Result) int { return x.Recovery.Pings }, strconv.Itoa),
		spread(r.Recover, func(x Result) time.Duration { return x.Recovery.Ping }, durationText),
		spread(r.Recover, func(x Result) int64 { return x.Recovery.PerTask }, bytesText),
		spread(r.Recover, func(x Result) int64 { return x.Recovery.Spec }, bytesText))
}

func (r *Report) writeEngine(w io.Writer) {
	if len(r.Engine) == 0 {
		return
	}
	fmt.Fprint(w, "\n## Launches on a Docker engine, beside a bare loop of the Docker client\n\n")
	var rows [][]string
	rate := func(x Result) float64 { return x.PerSecond }
	text := func(v float64) string { return fmt.Sprintf("%.2f/s", v) }
	for _, f := range r.Engine {
		rows = append(rows, []string{strconv.Itoa(f.AtOnce), spread(f.Bare, rate, text), spread(f.Ours, rate, text), percent(median(f.Bare, rate)/median(f.Ours, rate) - 1)})
	}
	table(w, []string{"at once", "bare", "mesopool", "overhead"}, rows)
}

// table writes a Markdown table that can also be read as it is.
func table(w io.Writer, head []string, rows [][]string) {
	t := tabwriter.NewWriter(w, 0, 4, 1, ' ', 0)
	defer t.Flush()
	line := func(cells []string) {
		for _, c := range cells {
			fmt.Fprintf(t, "| %s\t", c)
		}
		fmt.Fprintln(t, "|")
	}
	line(head)
	rule := make([]string, len(head))
	for i := range rule {
		rule[i] = "---"
	}
	line(rule)
	for _, r := range rows {
		line(r)
	}
}
