package cli

import (
	"context"
	"log/slog"
	"os"

	"github.com/spf13/pflag"
	"github.com/spf13/viper"

	"github.com/mesopool/mesopool/master/server"
	"github.com/mesopool/mesopool/mesos/credentials"
	"github.com/mesopool/mesopool/mesos/detect"
)

func authenticationFlags(f *pflag.FlagSet) {
	f.String("credentials", "", "a file with the principals and secrets of agents and frameworks (CRAM-MD5), as Mesos has them")
	f.Bool("authenticate-agents", false, "only agents that prove who they are with one of --credentials may register")
	f.Bool("authenticate-frameworks", false, "only scheduler drivers that prove who they are with one of --credentials may subscribe")
}

// authentication reads who must prove who he is, and how.
func authentication(v *viper.Viper) (server.Auth, error) {
	out := server.Auth{Agents: v.GetBool("authenticate-agents"), Drivers: v.GetBool("authenticate-frameworks")}
	path := v.GetString("credentials")
	if path == "" {
		if out.Agents || out.Drivers {
			return out, exit(exitUsage, "--authenticate-agents and --authenticate-frameworks need --credentials: nobody could prove who he is")
		}
		return out, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return out, exit(exitUsage, "--credentials: %w", err)
	}
	if out.Known, err = credentials.Parse(text); err != nil {
		return out, exit(exitUsage, "--credentials %s: %w", path, err)
	}
	return out, nil
}

// election is that of --zk; nil when this is the only master.
func election(v *viper.Viper, log *slog.Logger) (server.Election, error) {
	text := v.GetString("zk")
	if text == "" {
		return nil, nil
	}
	c, err := detect.NewContender(text, log)
	if err != nil {
		return nil, exit(exitUsage, "--zk: %w", err)
	}
	return c, nil
}

// whenLeading calls do when the master leads, unless ctx ends first.
func whenLeading(ctx context.Context, s *server.Server, do func()) {
	select {
	case <-s.Leading():
		do()
	case <-ctx.Done():
	}
}
