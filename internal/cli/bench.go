package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strings"
	"text/tabwriter"
	"time"

	dockerclient "github.com/docker/docker/client"
	"github.com/spf13/cobra"
	"github.com/spf13/viper"

	"github.com/mesopool/mesopool/internal/bench"
	"github.com/mesopool/mesopool/provider/docker"
	"github.com/mesopool/mesopool/provider/limit"
	"github.com/mesopool/mesopool/provider/memory"
	"github.com/mesopool/mesopool/store"
	"github.com/mesopool/mesopool/task"
)

func newBench() *cobra.Command {
	cmd := &cobra.Command{
		Use: "bench", Args: noArgs, RunE: runBench,
		Short: "Measure launches per second, and the time from ACCEPT to RUNNING",
		Long: `Measures launches through the real v1 scheduler API, the bundled master, the
real agent protocol and the virtual agent, with every status update acknowledged.

  --provider memory   on a simulated data center
  --provider docker   on the engine, beside a bare loop of the Docker client
                      at the same concurrency

Everything that it makes is taken away again.`,
	}
	f := cmd.Flags()
	f.String("provider", "memory", "memory or docker")
	f.Int("tasks", 0, "how many tasks; 0: 50000 in memory, 40 on an engine")
	f.Int("in-flight", 0, "launches at a time; 0: 1000 in memory, 4 on an engine")
	f.Int("rounds", 1, "how many times")
	f.Duration("idle", 0, "memory: how long to watch the running tasks afterwards, for the CPU they cost")
	f.Bool("restart", false, "memory: restart the agent with all tasks running, and measure its recovery")
	f.Bool("durable", false, "memory: keep the agent's state in a file, as a real agent does")
	f.String("cpu-profile", "", "write a CPU profile to this file, for go tool pprof")
	f.String("heap-profile", "", "memory: write what holds memory when all tasks run to this file, for go tool pprof")
	f.Bool("json", false, "print JSON instead of a table")
	pause := &cobra.Command{
		Use: "pause", Short: "Wait until told to end; what the benchmark's containers run", Args: noArgs, Hidden: true,
		RunE: func(cmd *cobra.Command, _ []string) error { <-cmd.Context().Done(); return nil },
	}
	cmd.AddCommand(pause, newBenchMaster(), newBenchMarathon(), newBenchEndpoint(), newBenchReport())
	return cmd
}

func newBenchMaster() *cobra.Command {
	cmd := &cobra.Command{
		Use: "master", Args: noArgs, RunE: runBenchMaster,
		Short: "Measure the master with many simulated agents and several frameworks",
		Long: `Measures the bundled master alone: simulated agents speak the real agent protocol,
frameworks the real v1 scheduler API, all over loopback. In turn: agents register,
everything is offered, tasks start, every state changes once, the whole state is
read, and another master takes over.`,
	}
	f := cmd.Flags()
	f.Int("agents", 10_000, "how many agents")
	f.Int("frameworks", 4, "how many frameworks")
	f.Int("tasks", 100_000, "how many tasks, in all")
	f.Int("rounds", 1, "how many times")
	f.String("cpu-profile", "", "write a CPU profile to this file, for go tool pprof")
	f.Bool("json", false, "print JSON instead of a table")
	return cmd
}

func runBenchMaster(cmd *cobra.Command, _ []string) error {
	v, err := settings(cmd, nil)
	if err != nil {
		return err
	}
	o := bench.MasterOptions{
		Agents: v.GetInt("agents"), Frameworks: v.GetInt("frameworks"), Tasks: v.GetInt("tasks"), Progress: cmd.ErrOrStderr(),
	}
	if o.Agents < 1 || o.Frameworks < 1 || o.Tasks < o.Frameworks {
		return exit(exitUsage, "--agents %d, --frameworks %d, --tasks %d: each must be at least 1, and there must be a task for every framework", o.Agents, o.Frameworks, o.Tasks)
	}
	stop, err := profile(v.GetString("cpu-profile"))
	if err != nil {
		return err
	}
	defer stop()
	tuneGC()
	var results []bench.MasterResult
	for range max(1, v.GetInt("rounds")) {
		r, err := bench.RunMaster(cmd.Context(), o)
		if err != nil {
			return err
		}
		results = append(results, r)
	}
	clearProgress(cmd)
	c := &printer{json: v.GetBool("json"), out: cmd.OutOrStdout()}
	return c.print(results, func(w io.Writer) { bench.WriteMaster(w, results) })
}

func newBenchMarathon() *cobra.Command {
	cmd := &cobra.Command{
		Use: "marathon", Args: noArgs, RunE: runBenchMarathon,
		Short: "Measure Marathon: deployments, reads, events",
		Long: `Measures Marathon with a real master and a virtual agent on a simulated data
center: apps of more and more instances from their POST until all run, then reads
and events with many apps.`,
	}
	f := cmd.Flags()
	f.IntSlice("instances", []int{1, 100, 10_000}, "the apps that are posted, one after the other")
	f.Int("apps", 1000, "how many apps there are for the reads, each of ten instances")
	f.Int("subscribers", 100, "how many listen to the events")
	f.String("cpu-profile", "", "write a CPU profile to this file, for go tool pprof")
	f.Bool("json", false, "print JSON instead of a table")
	return cmd
}

func runBenchMarathon(cmd *cobra.Command, _ []string) error {
	v, err := settings(cmd, nil)
	if err != nil {
		return err
	}
	stop, err := profile(v.GetString("cpu-profile"))
	if err != nil {
		return err
	}
	defer stop()
	tuneGC()
	r, err := bench.RunMarathon(cmd.Context(), bench.MarathonOptions{
		Cluster: bench.Options{
			Provider: memory.New(memory.Config{}), Owner: task.Owner{Cluster: "bench", Agent: "agent"}, Progress: cmd.ErrOrStderr(),
			Store: func() (store.Store, error) { return store.NewMemory(), nil },
		},
		Sizes: v.GetIntSlice("instances"), Apps: v.GetInt("apps"), PerApp: 10, Reads: 500, Subscribers: v.GetInt("subscribers"),
	})
	if err != nil {
		return err
	}
	clearProgress(cmd)
	c := &printer{json: v.GetBool("json"), out: cmd.OutOrStdout()}
	return c.print(r, func(w io.Writer) { bench.WriteMarathon(w, &r) })
}

func newBenchEndpoint() *cobra.Command {
	cmd := &cobra.Command{
		Use: "endpoint", Args: noArgs, RunE: runBenchEndpoint,
		Short: "Measure agents of several tenants on a Triton-style endpoint",
		Long: `Measures the endpoint with a simulated data center behind it, and agents of several
tenants that use it over TLS on the loopback. In turn: everything is launched, the
agents start anew and take stock of all there is, and nothing happens for a while.
What one more, small tenant waits for its answers is measured before and among all
others' containers.`,
	}
	f := cmd.Flags()
	f.Int("containers", 100_000, "how many containers, in all")
	f.Int("tenants", 4, "how many tenants")
	f.Int("rounds", 1, "how many times")
	f.Duration("idle", time.Minute, "how long to watch when nothing happens")
	f.String("cpu-profile", "", "write a CPU profile to this file, for go tool pprof")
	f.Bool("json", false, "print JSON instead of a table")
	return cmd
}

func runBenchEndpoint(cmd *cobra.Command, _ []string) error {
	v, err := settings(cmd, nil)
	if err != nil {
		return err
	}
	o := bench.EndpointOptions{
		Containers: v.GetInt("containers"), Tenants: v.GetInt("tenants"), Idle: v.GetDuration("idle"), Progress: cmd.ErrOrStderr(),
	}
	if o.Tenants < 1 || o.Containers < o.Tenants || o.Idle <= 0 {
		return exit(exitUsage, "--containers %d, --tenants %d, --idle %v: every tenant must have a container, and the time must be above 0", o.Containers, o.Tenants, o.Idle)
	}
	stop, err := profile(v.GetString("cpu-profile"))
	if err != nil {
		return err
	}
	defer stop()
	tuneGC()
	var results []bench.EndpointResult
	for range max(1, v.GetInt("rounds")) {
		r, err := bench.RunEndpoint(cmd.Context(), o)
		if err != nil {
			return err
		}
		results = append(results, r)
	}
	clearProgress(cmd)
	c := &printer{json: v.GetBool("json"), out: cmd.OutOrStdout()}
	return c.print(results, func(w io.Writer) { bench.WriteEndpoint(w, results) })
}

func newBenchReport() *cobra.Command {
	cmd := &cobra.Command{
		Use: "report", Args: noArgs, RunE: runBenchReport,
		Short: "Measure everything, and write one report",
		Long: `Measures launches of more and more tasks, the recovery of an agent, a master with
many agents and, with --engine, the overhead on a Docker engine; each in a process
of its own, several rounds each. Prints Markdown. The whole report takes half an
hour on two cores; --tasks 10000 --rounds 1 takes a minute.`,
	}
	f := cmd.Flags()
	f.Int("tasks", 1_000_000, "the largest launch; the smaller ones are its tenth, hundredth …, from 1000 on")
	f.Int("recover", 100_000, "how many containers an agent recovers")
	f.Int("agents", 10_000, "how many agents the master has")
	f.Int("rounds", 3, "how many times each is measured")
	f.Duration("idle", 30*time.Second, "how long a cluster in which nothing happens is watched")
	f.Bool("engine", false, "measure the Docker engine too, at 1, 4 and 16 launches at a time")
	f.String("json-file", "", "write all figures to this file")
	f.String("svg-file", "", "write a plot to this file")
	return cmd
}

func runBenchReport(cmd *cobra.Command, _ []string) error {
	v, err := settings(cmd, nil)
	if err != nil {
		return err
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	o := bench.ReportOptions{
		Rounds: max(1, v.GetInt("rounds")), Idle: v.GetDuration("idle"), Recover: min(v.GetInt("recover"), v.GetInt("tasks")),
		Agents: v.GetInt("agents"), Say: func(text string) { fmt.Fprintln(cmd.ErrOrStderr(), text) },
		Command: func(ctx context.Context, args ...string) ([]byte, error) {
			c := exec.CommandContext(ctx, program, args...)
			var complaint bytes.Buffer
			c.Stderr = &complaint
			out, err := c.Output()
			if err != nil {
				err = fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, lastLine(complaint.String()))
			}
			return out, err
		},
	}
	for n := 1000; n <= v.GetInt("tasks"); n *= 10 {
		o.Sizes = append(o.Sizes, n)
	}
	if v.GetBool("engine") {
		o.Engine = []int{1, 4, 16}
	}
	r, err := bench.MakeReport(cmd.Context(), o)
	if err != nil {
		return err
	}
	r.Write(cmd.OutOrStdout())
	return writeReport(r, v.GetString("json-file"), v.GetString("svg-file"))
}

// writeReport writes the files that are asked for.
func writeReport(r *bench.Report, jsonFile, svgFile string) error {
	if jsonFile != "" {
		text, err := json.MarshalIndent(r, "", "  ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(jsonFile, append(text, '\n'), 0o644); err != nil {
			return err
		}
	}
	if svgFile == "" {
		return nil
	}
	var plot bytes.Buffer
	r.Plot(&plot)
	return os.WriteFile(svgFile, plot.Bytes(), 0o644)
}

// lastLine is the last line of what a program has said, without its progress.
func lastLine(text string) string {
	lines := strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' })
	if len(lines) == 0 {
		return ""
	}
	return strings.TrimSpace(lines[len(lines)-1])
}

// clearProgress ends the line of progress.
func clearProgress(cmd *cobra.Command) { fmt.Fprintf(cmd.ErrOrStderr(), "\r%-60s\r", "") }

// benchReport is what a run of the benchmark prints.
type benchReport struct {
	Provider string         `json:"provider"`
	Cores    int            `json:"cores"`
	Go       string         `json:"go"`
	Results  []bench.Result `json:"results"`
}

func runBench(cmd *cobra.Command, _ []string) error {
	v, err := settings(cmd, nil)
	if err != nil {
		return err
	}
	stop, err := profile(v.GetString("cpu-profile"))
	if err != nil {
		return err
	}
	defer stop()
	tuneGC()
	report := benchReport{Provider: v.GetString("provider"), Cores: runtime.NumCPU(), Go: runtime.Version()}
	for range max(1, v.GetInt("rounds")) {
		var results []bench.Result
		switch report.Provider {
		case "memory":
			results, err = benchMemory(cmd, v)
		case "docker":
			results, err = benchDocker(cmd, v)
		default:
			return exit(exitUsage, "--provider is %q; it must be memory or docker", report.Provider)
		}
		if err != nil {
			return err
		}
		report.Results = append(report.Results, results...)
	}
	clearProgress(cmd)
	c := &printer{json: v.GetBool("json"), out: cmd.OutOrStdout()}
	return c.print(report, func(w io.Writer) { printBench(w, &report) })
}

// profile begins a CPU profile; "" begins none.
func profile(path string) (stop func(), err error) {
	if path == "" {
		return func() {}, nil
	}
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, err
	}
	return func() { pprof.StopCPUProfile(); f.Close() }, nil
}

func printBench(w io.Writer, r *benchReport) {
	fmt.Fprintf(w, "%s, %d cores, %s\n", r.Provider, r.Cores, r.Go)
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "\ttasks\tfailed\tat once\ttasks/s\tp50\tp99\t")
	for _, x := range r.Results {
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%.1f\t%v\t%v\t\n", x.Name, x.Tasks, x.Failed, x.AtOnce, x.PerSecond,
			x.P50.Round(10*time.Microsecond), x.P99.Round(10*time.Microsecond))
	}
	t.Flush()
	for _, x := range r.Results {
		if c := x.Recovery; c.Took > 0 {
			fmt.Fprintf(w, "%s: recovered in %v; %d pings answered meanwhile, the longest wait %v; the agent holds %d bytes a task, of which %d describe the task\n",
				x.Name, c.Took.Round(time.Millisecond), c.Pings, c.Ping.Round(time.Millisecond), c.PerTask, c.Spec)
		}
		if x.Failed > 0 {
			fmt.Fprintf(w, "%s: the first failure was %s\n", x.Name, x.FirstFail)
		}
	}
}

func either(n, otherwise int) int {
	if n > 0 {
		return n
	}
	return otherwise
}

func benchMemory(cmd *cobra.Command, v *viper.Viper) ([]bench.Result, error) {
	o := bench.Options{
		Name: "mesopool", Provider: memory.New(memory.Config{}), Owner: task.Owner{Cluster: "bench", Agent: "agent"},
		Spec: task.Spec{Name: "bench", Image: "bench"}, Tasks: either(v.GetInt("tasks"), 50_000), InFlight: either(v.GetInt("in-flight"), 1000),
		Store: func() (store.Store, error) { return store.NewMemory(), nil }, Progress: cmd.ErrOrStderr(),
		Idle: v.GetDuration("idle"), Restart: v.GetBool("restart"), Leave: true,
	}
	if path := v.GetString("heap-profile"); path != "" {
		f, err := os.Create(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		o.Heap = f
	}
	if v.GetBool("durable") {
		dir, err := os.MkdirTemp("", "mesopool-bench-")
		if err != nil {
			return nil, err
		}
		defer os.RemoveAll(dir)
		o.Name, o.Store = "mesopool, durable", func() (store.Store, error) { return store.OpenBolt(filepath.Join(dir, "agent.db")) }
	}
	r, err := bench.Run(cmd.Context(), o)
	return []bench.Result{r}, err
}

// benchDocker measures the engine bare, ours, and bare again, so that a drift
// of the machine shows.
func benchDocker(cmd *cobra.Command, v *viper.Viper) (results []bench.Result, err error) {
	ctx := cmd.Context()
	id := fmt.Sprintf("mesopool-bench-%d", os.Getpid())
	cli, err := dockerclient.NewClientWithOpts(dockerclient.FromEnv, dockerclient.WithAPIVersionNegotiation())
	if err != nil {
		return nil, err
	}
	defer cli.Close()
	opt := docker.OptionsFromEnv(os.Getenv)
	opt.Cluster, opt.Network = id, id
	engine, err := docker.New(opt)
	if err != nil {
		return nil, err
	}
	if _, err := engine.Capacity(ctx); err != nil {
		return nil, err
	}
	e := &bench.Engine{Client: cli, Image: id + ":bench", Network: id, Label: id}
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	if err := e.Import(ctx, program); err != nil {
		return nil, err
	}
	defer cleanUp(context.WithoutCancel(ctx), e, &err)
	argv := []string{"/program", "bench", "pause"}
	atOnce, tasks := either(v.GetInt("in-flight"), 4), either(v.GetInt("tasks"), 40)
	ours := bench.Options{
		Name: "mesopool", Provider: limit.New(engine, limit.Options{Launches: atOnce}), Owner: task.Owner{Cluster: id, Agent: "agent"},
		Spec: task.Spec{Name: "bench", Image: e.Image, Command: task.Command{Args: argv}}, Tasks: tasks, InFlight: atOnce, Workers: 16 + atOnce,
		Store: func() (store.Store, error) { return store.NewMemory(), nil }, Progress: cmd.ErrOrStderr(),
	}
	warm := ours
	warm.Tasks = 1 // makes the network, warms the engine
	if _, err := bench.Run(ctx, warm); err != nil {
		return nil, err
	}
	for _, step := range []func() (bench.Result, error){
		func() (bench.Result, error) { return e.Loop(ctx, argv, tasks, atOnce) },
		func() (bench.Result, error) { return bench.Run(ctx, ours) },
		func() (bench.Result, error) { return e.Loop(ctx, argv, tasks, atOnce) },
	} {
		r, err := step()
		if err != nil {
			return results, err
		}
		results = append(results, r)
	}
	return results, nil
}

// cleanUp takes the image and the network away.
func cleanUp(ctx context.Context, e *bench.Engine, err *error) {
	if rm := e.Remove(ctx); rm != nil && *err == nil {
		*err = rm
	}
	if rm := e.Client.NetworkRemove(ctx, e.Network); rm != nil && *err == nil {
		*err = rm
	}
}
