package cli

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/viper"

	"github.com/mesopool/mesopool/agent"
	agentapi "github.com/mesopool/mesopool/agent/api"
	"github.com/mesopool/mesopool/agent/archive"
	"github.com/mesopool/mesopool/consul"
	"github.com/mesopool/mesopool/internal/uuid"
	"github.com/mesopool/mesopool/mesos/executor"
	"github.com/mesopool/mesopool/mesos/libprocess"
	"github.com/mesopool/mesopool/mesos/link"
	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/task"
)

// shard is one of the agents that an agent process shows to the master. All
// share an address and a backend; each has its tasks, its store and its ID.
type shard struct {
	runner *agent.Runner
	link   *link.Link
	pages  http.Handler
}

// shardAttribute tells a shard's number to frameworks that want to spread.
const shardAttribute = "shard"

// shardName is the name of a shard's owner and of its store. The first has that
// of an agent that has no others, so that one can become several.
func shardName(base string, i int) string {
	if i == 0 {
		return base
	}
	return base + "-" + strconv.Itoa(i+1)
}

// openShards opens the stores. What earlier shards have left is not abandoned
// by a mistake in a flag.
func (r *agentRole) openShards(dir string, n int) error {
	if n < 1 || n > 1000 {
		return exit(exitUsage, "--shards is %d; it must be from 1 to 1000", n)
	}
	if dir != "" {
		left := filepath.Join(dir, shardName("agent", n)+".db")
		if _, err := os.Stat(left); err == nil {
			return exit(exitUsage, "--shards is %d, but there were more: drain the others and remove %s and what follows it, or set --shards as it was", n, left)
		}
	}
	for i := range n {
		st, err := openStore(dir, shardName("agent", i))
		if err != nil {
			return err
		}
		r.stores = append(r.stores, st)
	}
	r.archive(dir)
	return nil
}

// shard makes one that has not started.
func (r *agentRole) shard(i int, node *libprocess.Node, share resources.Resources, reg *consul.Registrar, logged *agentapi.LogBuffer) *shard {
	s, owner, log := &shard{}, r.owner, r.log
	owner.Agent = shardName(owner.Agent, i)
	attrs := r.attrs
	if len(r.stores) > 1 {
		log = log.With("shard", i+1)
		attrs = append(attrs[:len(attrs):len(attrs)], &mesosv1.Attribute{
			Name: new(shardAttribute), Type: mesosv1.Value_TEXT.Enum(), Text: &mesosv1.Value_Text{Value: new(strconv.Itoa(i + 1))},
		})
	}
	core := r.core
	core.Owner, core.NewUUID = owner, uuid.New
	opt := agent.Options{Core: core, Provider: r.provider, Store: r.stores[i], Fetcher: r.files, Log: log, Workers: r.workers}
	if r.logs != nil {
		opt.Archive = r.logs
	}
	if reg != nil {
		opt.Registry = &registry{reg: reg, owner: owner, agentID: func() string { return s.link.AgentID() }, known: func() {
			if int(r.toldAll.Add(1)) == len(r.stores) {
				reg.Synced()
			}
		}}
	}
	hub := executor.NewHub(executor.Config{Info: func() *mesosv1.AgentInfo { return s.link.Info() }, Log: log})
	opt.Executors = hub
	s.runner = agent.NewRunner(opt)
	self := node.UPID(fmt.Sprintf("slave(%d)", i+1))
	s.link = link.New(link.Config{
		Node: node, Self: self, Master: r.master.UPID, Recheck: recheck, Credential: r.secret, Hostname: r.hostname, Resources: share, Attributes: attrs,
		Domain: r.domain, Version: mesosVersion, Store: r.stores[i], Log: log, RemoveVolume: r.volumeRemover(owner), Shutdown: r.shutdown,
		ExecutorGrace: core.KillGrace, Recovery: core.Recovery,
	})
	s.pages = agentapi.New(agentapi.Config{
		Runner: s.runner, Provider: r.provider, ID: s.link.AgentID, PID: self.String(), Hostname: r.hostname, Version: mesosVersion,
		Total: s.link.Total, Attributes: attrs, Domain: r.domain, Flags: r.flags, Started: time.Now(), Operations: s.link.Operations,
		Refused: s.link.Refused, Executors: hub.Serve(s.runner), Log: logged, Level: verbosity, Saved: r.saved(),
		Master: func() (string, bool) { m, ok := s.link.Master(); return m.String(), ok },
	})
	return s
}

// shardPages serves each shard below its actor's name, and the first everywhere.
func shardPages(shards []*shard) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := 1
		if rest, ok := strings.CutPrefix(r.URL.Path, "/slave("); ok {
			text, _, _ := strings.Cut(rest, ")")
			n, _ = strconv.Atoi(text)
		}
		if n < 1 || n > len(shards) {
			http.Error(w, "404 Not Found.", http.StatusNotFound)
			return
		}
		shards[n-1].pages.ServeHTTP(w, r)
	})
}

// peerTLS is how connections between master and agent are protected, in both
// directions, as with LIBPROCESS_SSL_ENABLED; nil: not at all.
type peerTLS struct{ server, client *tls.Config }

// readTLS reads the files that the flags name; without a certificate there is no
// TLS.
func readTLS(cert, key, ca string, requireClient bool) (*peerTLS, error) {
	if cert == "" && key == "" && ca == "" {
		return nil, nil
	}
	own, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, exit(exitUsage, "--tls-cert and --tls-key: %w", err)
	}
	t := &peerTLS{
		server: &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{own}},
		client: &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{own}},
	}
	if ca != "" {
		pool, err := authorities(ca)
		if err != nil {
			return nil, err
		}
		t.client.RootCAs, t.server.ClientCAs = pool, pool
	}
	if requireClient {
		t.server.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return t, nil
}

// authorities reads the certificates that --tls-ca names.
func authorities(ca string) (*x509.CertPool, error) {
	text, err := os.ReadFile(ca)
	if err != nil {
		return nil, exit(exitUsage, "--tls-ca: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, exit(exitUsage, "--tls-ca: %s holds no certificate", ca)
	}
	return pool, nil
}

// wrap protects a listener and gives what dials; a nil one leaves both as they
// are.
func (t *peerTLS) wrap(l net.Listener) (net.Listener, func(context.Context, string) (net.Conn, error)) {
	if t == nil {
		return l, nil
	}
	dialer := &tls.Dialer{NetDialer: &net.Dialer{Timeout: 10 * time.Second}, Config: t.client}
	return tls.NewListener(l, t.server), func(ctx context.Context, addr string) (net.Conn, error) { return dialer.DialContext(ctx, "tcp", addr) }
}

// parsePorts reads --synthetic-ports: ranges as in 31000-32000,33000-34000.
func parsePorts(text string) (resources.Resources, error) {
	if text == "" {
		return nil, nil
	}
	r, err := resources.Parse("ports:[" + text + "]")
	if err != nil || len(r) != 1 || len(r[0].Ranges) == 0 || r[0].Ranges[len(r[0].Ranges)-1].End > 65535 {
		return nil, exit(exitUsage, "--synthetic-ports is %q; it must be ranges of ports, as in 31000-32000", text)
	}
	return r, nil
}

// parseDomain reads --domain: region/zone.
func parseDomain(text string) (*mesosv1.DomainInfo, error) {
	if text == "" {
		return nil, nil
	}
	region, zone, ok := strings.Cut(text, "/")
	if !ok || region == "" || zone == "" || strings.Contains(zone, "/") {
		return nil, exit(exitUsage, "--domain is %q; it must be region/zone", text)
	}
	return &mesosv1.DomainInfo{FaultDomain: &mesosv1.DomainInfo_FaultDomain{
		Region: &mesosv1.DomainInfo_FaultDomain_RegionInfo{Name: &region}, Zone: &mesosv1.DomainInfo_FaultDomain_ZoneInfo{Name: &zone},
	}}, nil
}

// archive keeps the logs of removed containers beside the agent's state.
func (r *agentRole) archive(dir string) {
	if dir != "" && r.keepLogs > 0 {
		r.logs = &archive.Folder{Dir: filepath.Join(dir, "logs"), Keep: r.keepLogs}
	}
}

func (r *agentRole) saved() func(task.Key, bool) (io.ReadCloser, error) {
	if r.logs == nil {
		return nil
	}
	return r.logs.Open
}

// rereader reads the resources of the configuration file again, which may have
// changed; empty: it makes no sense. Nil: the resources come from elsewhere.
func rereader(v *viper.Viper) func() resources.Resources {
	path := v.GetString("config")
	text := func() string {
		file := viper.New()
		file.SetConfigFile(path)
		if file.ReadInConfig() != nil {
			return ""
		}
		return file.GetString("resources")
	}
	if path == "" || text() != v.GetString("resources") {
		return nil
	}
	return func() resources.Resources {
		r, err := resources.Parse(text())
		if err != nil {
			return nil
		}
		return r
	}
}
