package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/spf13/viper"
	"golang.org/x/sync/errgroup"

	"github.com/mesopool/mesopool/endpoint"
	runs "github.com/mesopool/mesopool/endpoint/backend"
	"github.com/mesopool/mesopool/endpoint/cloudapi"
)

func newEndpoint() *cobra.Command {
	cmd := role("endpoint", "Run a Triton-style Docker endpoint for many tenants", endpointFlags, runEndpoint)
	cmd.AddCommand(newAccount(), newPackage())
	return cmd
}

func endpointFlags(f *pflag.FlagSet) {
	stateFlag(f)
	addressFlags(f, 2376)
	f.Int("cloudapi-port", 8443, "the port of CloudAPI; 0: none")
	f.StringSlice("hostname", nil, "further names and addresses that the server's certificate is for")
	f.String("backend", "memory", "what runs the containers: memory (a simulated data center), or engine (a Docker engine)")
	f.String("docker", "", "engine: its endpoint; default: DOCKER_HOST, or the local engine")
	f.String("name", "mesopool", "engine: what is the endpoint's own there is named after this")
	f.Duration("provisioning", 0, "memory: how long making a container takes")
	f.Int("memory", 0, "memory: what all containers together may have, in MiB; 0: no bound")
	f.String("packages", "", "a JSON file with the packages; default: sample-128M to sample-64G")
	f.String("datacenter", "mesopool", "the data center's name")
	f.StringSlice("log-drivers", []string{"json-file"}, "what containers may log to")
	f.Bool("strict", false, "refuse what Triton silently ignores")
	f.Bool("honour-kill-signal", false, "send the signal that kill names; Triton's never arrives")
	f.Duration("idle-cut", 2*time.Minute, "how long a request may say nothing before its connection is closed; -1s: never")
}

func stateFlag(f *pflag.FlagSet) {
	f.String("state", "", "the folder of accounts and certificates; default: mesopool/endpoint in your folder for state")
}

func endpointDir(v *viper.Viper) (string, error) {
	dir, err := stateDir(v.GetString("state"), "endpoint")
	if err == nil && dir == "" {
		err = exit(exitUsage, "--state must name a folder: accounts and certificates are kept there")
	}
	return dir, err
}

func packages(v *viper.Viper) ([]endpoint.Package, error) {
	file := v.GetString("packages")
	if file == "" {
		return endpoint.DefaultPackages(), nil
	}
	all, err := endpoint.ReadPackages(file)
	if err != nil {
		return nil, exit(exitUsage, "--packages: %w", err)
	}
	return all, nil
}

func runEndpoint(ctx context.Context, v *viper.Viper, log *slog.Logger) error {
	dir, err := endpointDir(v)
	if err != nil {
		return err
	}
	cfg := endpoint.Config{
		Dir: dir, Datacenter: v.GetString("datacenter"), LogDrivers: v.GetStringSlice("log-drivers"), Strict: v.GetBool("strict"), Log: log,
	}
	if cfg.Packages, err = packages(v); err != nil {
		return err
	}
	if cfg.Backend, err = endpointBackend(ctx, v, log); err != nil {
		return err
	}
	at, err := listen(v, "endpoint", "")
	if err != nil {
		return err
	}
	defer at.listener.Close()
	cloud, err := endpoint.Open(ctx, cfg)
	if err != nil {
		return err
	}
	hosts := append(v.GetStringSlice("hostname"), at.advertise.Addr().String())
	server, err := endpoint.New(cloud, endpoint.Options{
		IdleCut: v.GetDuration("idle-cut"), HonourKillSignal: v.GetBool("honour-kill-signal"), Hosts: hosts,
	})
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	if port := v.GetInt("cloudapi-port"); port != 0 {
		api, err := listenAt(v.GetString("ip"), port, v.GetString("advertise-ip"), 0, "CloudAPI", "")
		if err != nil {
			return err
		}
		h := cloudapi.New(cloud, cloudapi.Options{URL: "https://" + api.advertise.String(), Docker: "tcp://" + at.advertise.String()})
		log.Info("CloudAPI listens", "address", api.listener.Addr())
		g.Go(func() error { return endpoint.ServeTLS(ctx, api.listener, cloud.Authority(), hosts, h, log) })
	}
	log.Info("the endpoint listens", "address", at.listener.Addr(), "advertised", at.advertise, "backend", v.GetString("backend"), "state", dir)
	g.Go(func() error { return cloud.Run(ctx) })
	g.Go(func() error { return server.Serve(ctx, at.listener) })
	return g.Wait()
}

func endpointBackend(ctx context.Context, v *viper.Viper, log *slog.Logger) (runs.Backend, error) {
	switch name := v.GetString("backend"); name {
	case "memory":
		return runs.NewMemory(runs.MemoryConfig{Provision: v.GetDuration("provisioning"), MemoryMiB: v.GetInt("memory")}), nil
	case "engine":
		if err := endpoint.CheckLogin(v.GetString("name")); err != nil {
			return nil, exit(exitUsage, "--name: %w", err)
		}
		return runs.NewEngine(ctx, runs.EngineConfig{Host: v.GetString("docker"), Name: v.GetString("name"), Log: log})
	default:
		return nil, exit(exitUsage, "--backend is %q; it must be memory or engine", name)
	}
}

// tool builds a command that works on the state folder and ends.
func tool(use, short string, args cobra.PositionalArgs, flags func(*pflag.FlagSet), run func(*cobra.Command, *viper.Viper, []string) error) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Args: args}
	flags(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		v, err := settings(cmd, nil)
		if err != nil {
			return err
		}
		return run(cmd, v, args)
	}
	return cmd
}

func newAccount() *cobra.Command {
	cmd := &cobra.Command{Use: "account", Short: "Manage the endpoint's accounts"}
	login := exactArgs(1, "an account's login")
	cmd.AddCommand(
		tool("add LOGIN", "Make an account, and a certificate for DOCKER_CERT_PATH; further runs change it and make another certificate", login, func(f *pflag.FlagSet) {
			stateFlag(f)
			f.String("certs", "", "where ca.pem, cert.pem and key.pem go; default: certs in the account's folder")
			f.StringSlice("key", nil, "files with SSH public keys: for CloudAPI, and for certificates that the Triton tools make")
			f.StringSlice("image", nil, "images of the backend that the account may use without pulling them; * is all")
			f.Int("max-machines", 0, "how many containers it may have; 0: no bound")
			f.Int("max-memory", 0, "how much memory they may have together, in MiB; 0: no bound")
			f.Int("max-disk", 0, "how much disk they may have together, in GiB; 0: no bound")
			f.Bool("disabled", false, "it may do nothing")
		}, accountAdd),
		tool("list", "List the accounts", noArgs, func(f *pflag.FlagSet) { stateFlag(f); f.Bool("json", false, "print JSON") }, accountList),
		tool("remove LOGIN", "Remove an account; its certificates are worth nothing from then on", login, stateFlag, accountRemove),
	)
	return cmd
}

func openAccounts(v *viper.Viper) (*endpoint.Accounts, string, error) {
	dir, err := endpointDir(v)
	if err != nil {
		return nil, "", err
	}
	accounts, err := endpoint.OpenAccounts(dir)
	return accounts, dir, err
}

func accountAdd(cmd *cobra.Command, v *viper.Viper, args []string) error {
	accounts, dir, err := openAccounts(v)
	if err != nil {
		return err
	}
	authority, err := endpoint.OpenAuthority(dir)
	if err != nil {
		return err
	}
	login := args[0]
	if err := endpoint.CheckLogin(login); err != nil {
		return exit(exitUsage, "%w", err)
	}
	keys, err := readKeys(v.GetStringSlice("key"))
	if err != nil {
		return err
	}
	if _, err := accounts.Get(login); err != nil {
		if _, err := accounts.Add(login); err != nil {
			return err
		}
	}
	acct, err := accounts.Change(login, func(a *endpoint.Account) error {
		return changeAccount(cmd.Flags(), v, a, keys)
	})
	if err != nil {
		return err
	}
	certs := cmp.Or(v.GetString("certs"), filepath.Join(accounts.Dir(login), "certs"))
	if err := authority.WriteCerts(acct, certs); err != nil {
		return err
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s (%s) may use the endpoint:\nexport DOCKER_TLS_VERIFY=1 DOCKER_CERT_PATH=%s DOCKER_API_VERSION=1.24\n", login, acct.UUID, certs)
	return err
}

// changeAccount sets what the command line names, and leaves the rest.
func changeAccount(f *pflag.FlagSet, v *viper.Viper, a *endpoint.Account, keys []endpoint.Key) error {
	for _, k := range keys {
		if _, known := a.FindKey(k.Fingerprint); !known && len(a.Keys) < endpoint.MaxKeys {
			a.Keys = append(a.Keys, k)
		}
	}
	for name, n := range map[string]*int{"max-machines": &a.Limits.Machines, "max-memory": &a.Limits.RAM, "max-disk": &a.Limits.Quota} {
		if f.Changed(name) {
			*n = v.GetInt(name)
		}
		if *n < 0 {
			return exit(exitUsage, "--%s must not be negative", name)
		}
	}
	if f.Changed("image") {
		a.Images = v.GetStringSlice("image")
	}
	if f.Changed("disabled") {
		a.Disabled = v.GetBool("disabled")
	}
	return nil
}

func readKeys(files []string) ([]endpoint.Key, error) {
	var all []endpoint.Key
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, exit(exitUsage, "--key: %w", err)
		}
		k, err := endpoint.ParseKey("", string(text))
		if err != nil {
			return nil, exit(exitUsage, "--key %s: %w", file, err)
		}
		all = append(all, k)
	}
	return all, nil
}

func accountList(cmd *cobra.Command, v *viper.Viper, _ []string) error {
	accounts, _, err := openAccounts(v)
	if err != nil {
		return err
	}
	all, err := accounts.List()
	if err != nil {
		return err
	}
	if v.GetBool("json") {
		return json.NewEncoder(cmd.OutOrStdout()).Encode(all)
	}
	t := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 4, 2, ' ', 0)
	fmt.Fprintln(t, "LOGIN\tID\tKEYS\tIMAGES\tDISABLED")
	for _, a := range all {
		fmt.Fprintf(t, "%s\t%s\t%d\t%s\t%v\n", a.Login, a.UUID, len(a.Keys), strings.Join(a.Images, ","), a.Disabled)
	}
	return t.Flush()
}

func accountRemove(cmd *cobra.Command, v *viper.Viper, args []string) error {
	accounts, _, err := openAccounts(v)
	if err != nil {
		return err
	}
	if err := accounts.Remove(args[0]); err != nil {
		return exit(exitNotFound, "%s: %w", args[0], err)
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s is removed; its containers are not\n", args[0])
	return err
}

func newPackage() *cobra.Command {
	cmd := &cobra.Command{Use: "package", Short: "Look at the sizes that containers are sold in"}
	cmd.AddCommand(tool("list", "List the packages", noArgs, func(f *pflag.FlagSet) {
		f.String("packages", "", "a JSON file with the packages; default: the built-in ones")
		f.Bool("json", false, "print JSON, as --packages reads it")
	}, packageList))
	return cmd
}

func packageList(cmd *cobra.Command, v *viper.Viper, _ []string) error {
	all, err := packages(v)
	if err != nil {
		return err
	}
	if v.GetBool("json") {
		e := json.NewEncoder(cmd.OutOrStdout())
		e.SetIndent("", "  ")
		return e.Encode(all)
	}
	t := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 4, 2, ' ', 0)
	fmt.Fprintln(t, "NAME\tMEMORY MiB\tDISK MiB\tCPU")
	for _, p := range all {
		fmt.Fprintf(t, "%s\t%d\t%d\t%.2f\n", p.Name, p.MemoryMiB, p.DiskMiB, float64(p.CPUCap)/100)
	}
	return t.Flush()
}
