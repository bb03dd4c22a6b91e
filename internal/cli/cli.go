package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/spf13/viper"
)

// Version is the program's version; the build may set it.
var Version = "0.1.0"

// mesosVersion is the Mesos whose protocols are spoken.
const mesosVersion = "1.11.0"

// The exit codes, as told by `mesopool help exit-codes`.
const (
	exitOK          = 0
	exitFailure     = 1
	exitUsage       = 2
	exitNotFound    = 3
	exitUnreachable = 4
	exitRefused     = 5
)

// exitError is an error with its exit code.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

func exit(code int, format string, args ...any) error {
	return &exitError{code, fmt.Errorf(format, args...)}
}

// Main runs a command line and returns the exit code.
func Main(args []string, out, errOut io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(out)
	root.SetErr(errOut)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	var coded *exitError
	if errors.As(err, &coded) {
		if text := err.Error(); text != "" {
			fmt.Fprintln(errOut, "mesopool:", text)
		}
		return coded.code
	}
	fmt.Fprintln(errOut, "mesopool:", err)
	if strings.HasPrefix(err.Error(), "unknown command") { // cobra gives it no type
		return exitUsage
	}
	return exitFailure
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:           "mesopool",
		Short:         "A whole data center as one Mesos agent, and the cluster around it",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.PersistentFlags().String("config", "", "a file (YAML, JSON or TOML) with the same settings as the flags")
	root.PersistentFlags().String("log-level", "info", "debug, info, warn or error")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &exitError{exitUsage, err} })
	root.AddCommand(newMaster(), newAgent(), newMarathon(), newUp(), newApp(), newTask(), newBench(), newAudit(), newEndpoint(), newPause(), newVersion(), exitCodes())
	return root
}

func exitCodes() *cobra.Command {
	return &cobra.Command{
		Use:   "exit-codes",
		Short: "What the exit codes mean",
		Long: `The exit codes:

  0  done
  1  it failed; the message says why
  2  the command line or the configuration is wrong
  3  what was named does not exist
  4  the server does not answer
  5  the server refused; the message has its words`,
	}
}

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "mesopool %s (speaks Mesos %s)\n", Version, mesosVersion)
			return err
		},
	}
}

func noArgs(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return exit(exitUsage, "%q is not an argument of this command", args[0])
	}
	return nil
}

func exactArgs(n int, what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != n {
			return exit(exitUsage, "this command takes %s", what)
		}
		return nil
	}
}

// settings reads a command's flags, the MESOPOOL_ variables and the file, in
// this order of precedence. aliases are further variables for single flags.
func settings(cmd *cobra.Command, aliases map[string]string) (*viper.Viper, error) {
	v := viper.New()
	v.SetEnvPrefix("MESOPOOL")
	v.SetEnvKeyReplacer(strings.NewReplacer("-", "_"))
	v.AutomaticEnv()
	var known []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) { known = append(known, f.Name) })
	if err := v.BindPFlags(cmd.Flags()); err != nil {
		return nil, err
	}
	for flag, variable := range aliases {
		own := "MESOPOOL_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
		if err := v.BindEnv(flag, own, variable); err != nil {
			return nil, err
		}
	}
	if err := readFile(v, known); err != nil {
		return nil, err
	}
	return v, nil
}

func readFile(v *viper.Viper, known []string) error {
	path := v.GetString("config")
	if path == "" {
		return nil
	}
	file := viper.New()
	file.SetConfigFile(path)
	if err := file.ReadInConfig(); err != nil {
		return exit(exitUsage, "the configuration file %s cannot be read: %w", path, err)
	}
	for _, key := range file.AllKeys() {
		if !slices.Contains(known, key) {
			return exit(exitUsage, "%s: %q is no setting of this command; its settings are %s", path, key, strings.Join(known, ", "))
		}
	}
	return v.MergeConfigMap(file.AllSettings())
}

// verbosity is the process's log level; an agent's API can change it for a while.
var verbosity = new(slog.LevelVar)

// logger writes to the error stream of the command.
func logger(cmd *cobra.Command, v *viper.Viper) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(v.GetString("log-level"))); err != nil {
		return nil, exit(exitUsage, "--log-level is %q; it must be debug, info, warn or error", v.GetString("log-level"))
	}
	verbosity.Set(level)
	log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: verbosity}))
	return log, nil
}
