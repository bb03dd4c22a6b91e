package consul

import (
	"context"
	"errors"
	"strings"

	"github.com/hashicorp/consul/api"
)

// Secrets are the values below a prefix of Consul's key–value store.
type Secrets struct {
	Address string // of an agent, host:port; the token is Consul's own CONSUL_HTTP_TOKEN
	Prefix  string // ends where the names begin
}

// Secret returns the value of a key, whose name follows the prefix.
func (s Secrets) Secret(ctx context.Context, source string) (string, error) {
	cfg := api.DefaultConfig()
	cfg.Address = withPort(s.Address)
	client, err := api.NewClient(cfg)
	if err != nil {
		return "", err
	}
	pair, _, err := client.KV().Get(s.Prefix+strings.TrimPrefix(source, "/"), (&api.QueryOptions{RequireConsistent: true}).WithContext(ctx))
	if err != nil {
		return "", err
	}
	if pair == nil {
		return "", errors.New("there is no such secret in Consul")
	}
	return string(pair.Value), nil
}
