package cli

import (
	"cmp"
	"context"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/spf13/viper"
	"golang.org/x/sync/errgroup"

	"github.com/mesopool/mesopool/agent"
	"github.com/mesopool/mesopool/consul"
	"github.com/mesopool/mesopool/gc"
	"github.com/mesopool/mesopool/marathon"
	"github.com/mesopool/mesopool/marathon/runner"
	"github.com/mesopool/mesopool/master"
	"github.com/mesopool/mesopool/mesos/link"
	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/provider/docker"
	"github.com/mesopool/mesopool/provider/limit"
	"github.com/mesopool/mesopool/provider/memory"
	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/task"
)

func commonFlags(f *pflag.FlagSet) {
	f.String("cluster", "mesos", "the cluster's name: it marks everything that is the cluster's own")
	f.String("work-dir", "", "the folder for state; default: state is kept in memory and gone with the process")
	f.String("consul", "", "a Consul agent, as host:port; default: none")
	f.String("hostname", "", "the name that people reach this one at; default: the machine's")
}

// role builds a command that serves until it is told to end.
func role(use, short string, flags func(*pflag.FlagSet), run func(context.Context, *viper.Viper, *slog.Logger) error) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Args: noArgs}
	flags(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		v, err := settings(cmd, nil)
		if err != nil {
			return err
		}
		log, err := logger(cmd, v)
		if err != nil {
			return err
		}
		tuneGC()
		return run(cmd.Context(), v, log)
	}
	return cmd
}

func newMaster() *cobra.Command {
	return role("master", "Run a Mesos master", func(f *pflag.FlagSet) {
		commonFlags(f)
		addressFlags(f, 5050)
		masterFlags(f)
		f.String("zk", "", "zk://…/path of the group that several masters are in, of which one leads, and where agents and frameworks find it")
		tlsFlags(f)
	}, func(ctx context.Context, v *viper.Viper, log *slog.Logger) error {
		r, err := masterFrom(v, log)
		if err != nil {
			return err
		}
		if r.election, err = election(v, r.log); err != nil {
			return err
		}
		if r.at, err = listen(v, "master", ""); err != nil {
			return err
		}
		if r.store, err = openStore(v.GetString("work-dir"), "master"); err != nil {
			return err
		}
		return r.run(ctx)
	})
}

func masterFlags(f *pflag.FlagSet) {
	d := master.DefaultConfig()
	f.Duration("agent-ping-timeout", d.PingInterval, "between two pings of an agent")
	f.Int("max-agent-ping-timeouts", d.PingLimit, "unanswered pings after which an agent is unreachable")
	f.Duration("offer-timeout", d.OfferTimeout, "an offer that is not answered is taken back after this; 0: never")
	securityFlags(f)
}

func masterFrom(v *viper.Viper, log *slog.Logger) (*masterRole, error) {
	name, err := cluster(v)
	if err != nil {
		return nil, err
	}
	core := master.DefaultConfig()
	core.PingInterval, core.PingLimit = v.GetDuration("agent-ping-timeout"), v.GetInt("max-agent-ping-timeouts")
	core.OfferTimeout = v.GetDuration("offer-timeout")
	if core.PingInterval <= 0 || core.PingLimit <= 0 {
		return nil, exit(exitUsage, "--agent-ping-timeout and --max-agent-ping-timeouts must be above 0")
	}
	r := &masterRole{cluster: name, hostname: v.GetString("hostname"), core: core, consul: v.GetString("consul"), log: log.With("role", "master")}
	if r.auth, r.limits, err = security(v); err != nil {
		return nil, err
	}
	r.tls, err = tlsFrom(v)
	return r, err
}

func newAgent() *cobra.Command {
	cmd := newAgentRole()
	cmd.AddCommand(newGarbage())
	return cmd
}

func newAgentRole() *cobra.Command {
	return role("agent", "Run a virtual agent: a data center as one Mesos agent", func(f *pflag.FlagSet) {
		commonFlags(f)
		addressFlags(f, 5051)
		f.String("master", "127.0.0.1:5050", masterUsage)
		f.String("credential", "", "a file with the principal and secret for the master (CRAM-MD5), as Mesos has them")
		agentFlags(f, "docker")
		tlsFlags(f)
	}, func(ctx context.Context, v *viper.Viper, log *slog.Logger) error {
		r, err := agentFrom(v, log)
		if err != nil {
			return err
		}
		if r.master, err = findMaster(v.GetString("master")); err != nil {
			return err
		}
		if r.secret, err = credential(v.GetString("credential")); err != nil {
			return err
		}
		if r.at, err = listen(v, "agent", v.GetString("master")); err != nil {
			return err
		}
		if err := r.openShards(v.GetString("work-dir"), v.GetInt("shards")); err != nil {
			return err
		}
		r.fetch.within(v.GetString("work-dir"))
		return r.run(ctx)
	})
}

func agentFlags(f *pflag.FlagSet, backend string) {
	d := agent.DefaultConfig()
	f.String("provider", backend, "what runs the containers: docker, triton, or memory (a simulated data center)")
	f.String("name", "agent", "the agent's stable name within the cluster")
	f.String("resources", "", "what to offer, such as cpus:100;mem:245760;disk:4096; default: all that the backend has")
	f.String("attributes", "", "the agent's attributes, such as rack:a;zone:b")
	f.String("domain", "", "the agent's fault domain, as region/zone; only for masters that have one")
	f.Float64("overcommit", 1, "how many times the cpus and the memory that there are is offered")
	f.String("synthetic-ports", "", "ranges of ports to offer to frameworks that insist on some, such as 31000-32000; they are never a conflict")
	f.Int("shards", 1, "as how many agents to appear, each with a part of what there is")
	f.String("network", "", "docker: the cluster's own network; default: mesopool-<cluster>")
	f.Bool("publish-loopback", false, "docker: publish task ports on free ports of 127.0.0.1, where container addresses cannot be reached")
	f.String("default-image", "", "the image of tasks that name none; default: they are refused")
	f.String("pod-image", "", "docker: the image of the containers that hold the network of a task group; default: one made of this program")
	f.String("docker-config", "", "docker: the config.json with the registries' credentials; default: that of the docker command")
	f.Bool("allow-privileged", false, "docker: let tasks have privileges over the engine's host")
	f.Duration("keep-succeeded", d.GC.Keep[gc.Succeeded], "how long the container of a task that succeeded is kept after its end")
	f.Duration("keep-failed", d.GC.Keep[gc.Failed], "how long that of a task that failed is kept")
	f.Duration("keep-killed", d.GC.Keep[gc.Killed], "how long that of a task that was killed is kept")
	f.Int("gc-pace", 1, "after the removal of a container none begins for so many times what it took; 0: at once")
	f.Duration("keep-logs", 24*time.Hour, "how long logs are kept in --work-dir after their container is removed; 0: not at all")
	f.Duration("orphan-grace", d.OrphanGrace, "a container of this agent's that belongs to no task is stopped after this")
	f.Int("max-kept", d.GC.MaxKept, "how many stopped containers are kept at most")
	f.Duration("executor-registration-timeout", d.Registration, "how long a framework's own executor may take to connect after its start")
	f.Duration("executor-recovery-timeout", d.Recovery, "how long one may take to connect again after a restart of the agent")
	f.Duration("kill-grace", d.KillGrace, "how long a task may take to stop, where it does not say itself")
	f.Duration("launch-timeout", d.LaunchTimeout, "a launch that keeps failing for so long fails the task")
	f.String("shutdown-policy", "exit", "what a master's order to shut down does: exit (the containers stay), ignore, or kill (all tasks, then exit)")
	f.String("fetcher-cache-dir", "", "the folder for the files that tasks name by URI; default: fetch in the folder for state, else one that goes with the process")
	f.Int64("fetcher-cache-size", 2048, "how many MiB of fetched files are kept for later tasks")
	tritonFlags(f)
	f.Int("launches", 4, "how many launches go to the backend at a time")
}

func agentFrom(v *viper.Viper, log *slog.Logger) (*agentRole, error) {
	name, err := cluster(v)
	if err != nil {
		return nil, err
	}
	log = log.With("role", "agent")
	r := &agentRole{
		owner: task.Owner{Cluster: name, Agent: v.GetString("name")}, hostname: hostname(v), consul: v.GetString("consul"), log: log,
		core: agent.DefaultConfig(), workers: 16 + v.GetInt("launches"),
	}
	r.flags = map[string]string{}
	for _, key := range v.AllKeys() {
		r.flags[strings.ReplaceAll(key, "-", "_")] = v.GetString(key)
	}
	r.core.Registration, r.core.Recovery = v.GetDuration("executor-registration-timeout"), v.GetDuration("executor-recovery-timeout")
	r.core.KillGrace, r.core.LaunchTimeout = v.GetDuration("kill-grace"), v.GetDuration("launch-timeout")
	if r.fetch.dir, r.fetch.cache = v.GetString("fetcher-cache-dir"), v.GetInt64("fetcher-cache-size")<<20; r.fetch.cache <= 0 {
		return nil, exit(exitUsage, "--fetcher-cache-size is %d; it must be above 0", v.GetInt64("fetcher-cache-size"))
	}
	r.core.GC = gc.Policy{
		Keep:    [3]time.Duration{gc.Succeeded: v.GetDuration("keep-succeeded"), gc.Failed: v.GetDuration("keep-failed"), gc.Killed: v.GetDuration("keep-killed")},
		MaxKept: v.GetInt("max-kept"), Pace: v.GetInt("gc-pace"),
	}
	r.core.OrphanGrace, r.keepLogs = v.GetDuration("orphan-grace"), v.GetDuration("keep-logs")
	if text := v.GetString("resources"); text != "" {
		if r.resources, err = resources.Parse(text); err != nil {
			return nil, exit(exitUsage, "--resources: %w", err)
		}
		r.reread = rereader(v)
	}
	if r.shutdown, err = link.ParseShutdown(v.GetString("shutdown-policy")); err != nil {
		return nil, exit(exitUsage, "--shutdown-policy: %w", err)
	}
	if r.attrs, err = parseAttributes(v.GetString("attributes")); err != nil {
		return nil, err
	}
	if err := r.shape(v); err != nil {
		return nil, err
	}
	r.provider, err = backend(v, name, log)
	return r, err
}

// shape reads as what the agent appears.
func (r *agentRole) shape(v *viper.Viper) (err error) {
	if r.ports, err = parsePorts(v.GetString("synthetic-ports")); err != nil {
		return err
	}
	if len(r.ports) > 0 { // by which our master knows that a port may be given to many
		r.attrs = append(r.attrs, &mesosv1.Attribute{Name: new("synthetic_ports"), Type: mesosv1.Value_TEXT.Enum(), Text: &mesosv1.Value_Text{Value: new("true")}})
	}
	if r.domain, err = parseDomain(v.GetString("domain")); err != nil {
		return err
	}
	if r.overcommit, err = resources.FromFloat(v.GetFloat64("overcommit")); err != nil || r.overcommit <= 0 || r.overcommit > resources.Whole(1000) {
		return exit(exitUsage, "--overcommit is %v; it must be above 0 and at most 1000", v.GetFloat64("overcommit"))
	}
	r.tls, err = tlsFrom(v)
	return err
}

// backend makes the provider that --provider names.
func backend(v *viper.Viper, cluster string, log *slog.Logger) (provider.Provider, error) {
	switch kind := v.GetString("provider"); kind {
	case "memory":
		return memory.New(memory.Config{Latency: memory.Span{Min: v.GetDuration("sim-latency"), Max: v.GetDuration("sim-latency")}}), nil
	case "docker":
		return dockerBackend(v, cluster, log)
	case "triton":
		return tritonBackend(v, log)
	default:
		return nil, exit(exitUsage, "--provider is %q; it must be docker, triton or memory", kind)
	}
}

func dockerBackend(v *viper.Viper, cluster string, log *slog.Logger) (provider.Provider, error) {
	certs, err := certificates(os.Getenv)
	if err != nil {
		return nil, err
	}
	o := docker.OptionsFromEnv(os.Getenv)
	o.CertPath = cmp.Or(certs, o.CertPath)
	o.Cluster, o.Network, o.PublishLoopback = cluster, v.GetString("network"), v.GetBool("publish-loopback")
	o.DefaultImage, o.AllowPrivileged, o.Log = v.GetString("default-image"), v.GetBool("allow-privileged"), log
	o.PodImage = v.GetString("pod-image")
	if o.Network == "" {
		o.Network = "mesopool-" + cluster
	}
	if file := v.GetString("docker-config"); file != "" {
		if _, err := os.Stat(file); err != nil {
			return nil, exit(exitUsage, "--docker-config: %w", err)
		}
		o.DockerConfig = file
	}
	o.PullProgress = func(image, text string) { log.Info("pulling", "image", image, "progress", text) }
	engine, err := docker.New(o)
	if err != nil {
		return nil, err
	}
	return limit.New(engine, limit.Options{Launches: v.GetInt("launches")}), nil
}

func newMarathon() *cobra.Command {
	return role("marathon", "Run the service scheduler: apps in, tasks out", func(f *pflag.FlagSet) {
		commonFlags(f)
		addressFlags(f, 8080)
		f.String("master", "127.0.0.1:5050", masterUsage)
		marathonFlags(f)
		electFlags(f)
		tlsClientFlags(f)
	}, func(ctx context.Context, v *viper.Viper, log *slog.Logger) error {
		r, err := marathonFrom(v, log)
		if err != nil {
			return err
		}
		if r.master, err = findMaster(v.GetString("master")); err != nil {
			return err
		}
		if r.at, err = listen(v, "marathon", v.GetString("master")); err != nil {
			return err
		}
		if r.elect, err = electFrom(v, r.log); err != nil {
			return err
		}
		if r.workDir = v.GetString("work-dir"); r.elect != nil {
			return r.run(ctx)
		}
		if r.store, err = openStore(r.workDir, "marathon"); err != nil {
			return err
		}
		return r.run(ctx)
	})
}

func marathonFlags(f *pflag.FlagSet) {
	f.String("framework-name", "marathon", "the framework's name")
	f.String("mesos-role", "*", "the role whose offers are used")
	f.String("webui-url", "", "where people find Marathon's pages; default: its address")
	f.String("mesos-ui-url", "", "where people find the master's pages; default: the master")
	identityFlags(f)
	f.String("secrets", "", "where the secrets of apps are: file:DIR, or consul:PREFIX in the key-value store of --consul; default: there are none")
}

func marathonFrom(v *viper.Viper, log *slog.Logger) (*marathonRole, error) {
	name, err := cluster(v)
	if err != nil {
		return nil, err
	}
	secrets, err := secretsFrom(v.GetString("secrets"), v.GetString("consul"))
	if err != nil {
		return nil, err
	}
	r := &marathonRole{
		secrets: secrets, cluster: name, name: v.GetString("framework-name"), hostname: hostname(v), role: v.GetString("mesos-role"), mesosUI: v.GetString("mesos-ui-url"), webUI: v.GetString("webui-url"),
		core: marathon.DefaultConfig(), consul: v.GetString("consul"), log: log.With("role", "marathon"),
	}
	if r.self, err = identityFrom(v); err != nil {
		return nil, err
	}
	r.tls, err = tlsClient(v)
	return r, err
}

// secretsFrom reads where secrets are; nil is nowhere.
func secretsFrom(where, consulAddress string) (runner.Secrets, error) {
	kind, rest, _ := strings.Cut(where, ":")
	switch {
	case where == "":
		return nil, nil
	case kind == "file" && rest != "":
		return runner.FileSecrets{Dir: rest}, nil
	case kind == "consul" && consulAddress != "":
		return consul.Secrets{Address: consulAddress, Prefix: rest}, nil
	case kind == "consul":
		return nil, exit(exitUsage, "--secrets %s needs the address of a Consul agent; give it with --consul", where)
	}
	return nil, exit(exitUsage, "--secrets is %q; it must be file:DIR or consul:PREFIX", where)
}

func newUp() *cobra.Command {
	return role("up", "Run a whole cluster in one process", func(f *pflag.FlagSet) {
		commonFlags(f)
		f.Lookup("work-dir").Usage = "the folder for state; default: mesopool/<cluster> in your folder for state; - keeps it in memory"
		f.String("ip", "127.0.0.1", "the address that all roles listen on")
		f.Int("master-port", 5050, "the master's port")
		f.Int("agent-port", 5051, "the agent's port")
		f.Int("marathon-port", 8080, "Marathon's port")
		masterFlags(f)
		agentFlags(f, "docker")
		marathonFlags(f)
		tlsFlags(f)
		f.Duration("sim-latency", 50*time.Millisecond, "memory: how long a launch takes")
	}, runUp)
}

func runUp(ctx context.Context, v *viper.Viper, log *slog.Logger) error {
	m, err := masterFrom(v, log)
	if err != nil {
		return err
	}
	a, err := agentFrom(v, log)
	if err != nil {
		return err
	}
	s, err := marathonFrom(v, log)
	if err != nil {
		return err
	}
	if err := upAddresses(v, m, a, s); err != nil {
		return err
	}
	dir, err := stateDir(v.GetString("work-dir"), m.cluster)
	if err != nil {
		return err
	}
	if err := upStores(dir, v.GetInt("shards"), m, a, s); err != nil {
		return err
	}
	a.fetch.within(dir)
	at := within(m.at)
	scheme := "http://"
	if m.tls != nil {
		scheme = "https://"
	}
	s.mesosUI = cmp.Or(s.mesosUI, scheme+at)
	if s.master, err = findMaster(at); err != nil {
		return err
	}
	if a.master, err = findMaster(at); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return m.run(ctx) })
	g.Go(func() error { return a.run(ctx) })
	g.Go(func() error { return s.run(ctx) })
	log.Info("the cluster is up", "mesos", scheme+at, "marathon", "http://"+within(s.at), "state", cmp.Or(dir, "in memory"))
	return g.Wait()
}

func upAddresses(v *viper.Viper, m *masterRole, a *agentRole, s *marathonRole) error {
	for _, x := range []struct {
		what, port string
		at         **address
	}{{"master", "master-port", &m.at}, {"agent", "agent-port", &a.at}, {"marathon", "marathon-port", &s.at}} {
		at, err := listenAt(v.GetString("ip"), v.GetInt(x.port), "", 0, x.what, "")
		if err != nil {
			return err
		}
		*x.at = at
	}
	return nil
}

func upStores(dir string, shards int, m *masterRole, a *agentRole, s *marathonRole) (err error) {
	if m.store, err = openStore(dir, "master"); err != nil {
		return err
	}
	if err = a.openShards(dir, shards); err != nil {
		return err
	}
	s.store, err = openStore(dir, "marathon")
	return err
}
