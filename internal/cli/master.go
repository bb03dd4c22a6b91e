package cli

import (
	"context"
	"log/slog"

	"github.com/spf13/viper"

	"github.com/mesopool/mesopool/master/server"
	"github.com/mesopool/mesopool/mesos/detect"
)

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
