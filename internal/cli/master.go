package cli

import (
	"context"
	"log/slog"

	"github.com/spf13/viper"

	"github.com/mesopool/mesopool/master/server"
	"github.com/mesopool/mesopool/mesos/credentials"
	"github.com/mesopool/mesopool/mesos/detect"
)

// authentication is that of agents and scheduler drivers.
func authentication(v *viper.Viper, known credentials.Known) (server.Authentication, error) {
	out := server.Authentication{Agents: v.GetBool("authenticate-agents"), Frameworks: v.GetBool("authenticate-frameworks")}
	switch {
	case known.Len() > 0:
		out.Secrets = known.Secret
	case out.Agents || out.Frameworks:
		return out, exit(exitUsage, "--authenticate-agents and --authenticate-frameworks need --credentials: nobody could prove who he is")
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
