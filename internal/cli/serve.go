package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"github.com/spf13/viper"
	"golang.org/x/sync/errgroup"

	"github.com/mesopool/mesopool/mesos/crammd5"
	"github.com/mesopool/mesopool/mesos/detect"
	"github.com/mesopool/mesopool/store"
)

// address is where a role listens and what it tells others of itself.
type address struct {
	listener  net.Listener
	advertise netip.AddrPort
}

// tuneGC trades memory for time: most of what servers allocate is gone at once,
// and collecting it seldom is a fifth of the work of a launch. Near two thirds of
// the machine's (or the container's) memory it is collected more often, so that
// no role drives the machine into swapping. GOGC and GOMEMLIMIT override.
func tuneGC() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(300)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		if n := physical(); n > 0 {
			debug.SetMemoryLimit(n / 3)
		}
	}
}

// physical is the memory that this process may use: the machine's, or the control group's if
// that is less; 0 where nobody tells.
func physical() int64 {
	var least int64
	for path, read := range map[string]func(string) int64{
		"/proc/meminfo":                               memTotal,
		"/sys/fs/cgroup/memory.max":                   wholeFile,
		"/sys/fs/cgroup/memory/memory.limit_in_bytes": wholeFile,
	} {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		if n := read(string(text)); n > 0 && (least == 0 || n < least) {
			least = n
		}
	}
	return least
}

// memTotal reads the first line of proc(5)'s meminfo: MemTotal: N kB.
func memTotal(text string) int64 {
	var kib int64
	fmt.Sscanf(text, "MemTotal: %d kB", &kib)
	return kib << 10
}

// wholeFile reads a file that is a number of bytes; "max" is none.
func wholeFile(text string) int64 {
	n, _ := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	return n
}

func addressFlags(f *pflag.FlagSet, port int) {
	f.String("ip", "127.0.0.1", "the address to listen on; 0.0.0.0 is all")
	f.Int("port", port, "the port to listen on")
	f.String("advertise-ip", "", "the address that others reach this one at; default: --ip, or this machine's own when that is 0.0.0.0")
	f.Int("advertise-port", 0, "the port that others reach this one at; default: --port")
}

// listen opens the port of a role. peer is somebody who must be reachable: it
// decides which of several own addresses is told to others.
func listen(v *viper.Viper, what, peer string) (*address, error) {
	return listenAt(v.GetString("ip"), v.GetInt("port"), v.GetString("advertise-ip"), v.GetInt("advertise-port"), what, peer)
}

func listenAt(ip string, port int, advertiseIP string, advertisePort int, what, peer string) (*address, error) {
	l, err := net.Listen("tcp4", net.JoinHostPort(ip, strconv.Itoa(port)))
	if err != nil {
		return nil, fmt.Errorf("the %s cannot listen on %s:%d: %w; choose another --ip or --port, or end what uses it", what, ip, port, err)
	}
	own := l.Addr().(*net.TCPAddr).AddrPort()
	a := &address{listener: l, advertise: netip.AddrPortFrom(own.Addr().Unmap(), own.Port())}
	host := own.Addr().Unmap()
	switch {
	case advertiseIP != "":
		if host, err = netip.ParseAddr(advertiseIP); err != nil {
			l.Close()
			return nil, exit(exitUsage, "--advertise-ip is %q; it must be an IP address", advertiseIP)
		}
	case host.IsUnspecified():
		host = ownAddress(peer)
	}
	if advertisePort != 0 {
		own = netip.AddrPortFrom(host, uint16(advertisePort))
	}
	a.advertise = netip.AddrPortFrom(host, own.Port())
	return a, nil
}

// ownAddress is the local end of a route to the peer, else the first address
// that is not loopback. Nothing is sent.
func ownAddress(peer string) netip.Addr {
	for _, target := range []string{peer, "192.0.2.1:9"} {
		conn, err := net.Dial("udp4", target)
		if err != nil {
			continue
		}
		local := conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap()
		conn.Close()
		return local
	}
	addrs, _ := net.InterfaceAddrs()
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLoopback() && n.IP.To4() != nil {
			ip, _ := netip.AddrFromSlice(n.IP.To4())
			return ip
		}
	}
	return netip.AddrFrom4([4]byte{127, 0, 0, 1})
}

// serve runs an HTTP server until ctx ends.
func serve(ctx context.Context, l net.Listener, h http.Handler) error {
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 30 * time.Second}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		return srv.Close()
	})
	return g.Wait()
}

// openStore opens a role's file in the work directory; "" keeps everything in
// memory.
func openStore(dir, role string) (store.Store, error) {
	if dir == "" {
		return store.NewMemory(), nil
	}
	return store.OpenBolt(filepath.Join(dir, role+".db"))
}

// stateDir is where a cluster in one process keeps its state: the folder that
// was named, or one of the user's own (XDG_STATE_HOME); "-" is none.
func stateDir(named, cluster string) (string, error) {
	switch {
	case named == "-":
		return "", nil
	case named != "":
		return named, nil
	}
	base := os.Getenv("XDG_STATE_HOME")
	if base == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", exit(exitUsage, "there is no home folder to keep the state in (%w); name one with --work-dir", err)
		}
		base = filepath.Join(home, ".local", "state")
	}
	return filepath.Join(base, "mesopool", cluster), nil
}

// findMaster reads --master: host:port, several of them, or where to look.
func findMaster(text string) (*detect.Detector, error) {
	d, err := detect.New(text, detect.Options{})
	if err != nil {
		return nil, exit(exitUsage, "--master: %w", err)
	}
	return d, nil
}

// masterUsage describes --master.
const masterUsage = "the master: host:port, a comma list of them, zk://…/path, consul://host:port/service or file:///path"

// credential reads the file that --credential names; "" is none.
func credential(path string) (*crammd5.Credential, error) {
	if path == "" {
		return nil, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, exit(exitUsage, "--credential: %w", err)
	}
	c, err := crammd5.Parse(string(text))
	if err != nil {
		return nil, exit(exitUsage, "--credential %s: %w", path, err)
	}
	return &c, nil
}

func hostname(v *viper.Viper) string {
	if h := v.GetString("hostname"); h != "" {
		return h
	}
	h, err := os.Hostname()
	if err != nil {
		return "localhost"
	}
	return h
}

// cluster checks the name that marks everything that is the cluster's own.
func cluster(v *viper.Viper) (string, error) {
	name := v.GetString("cluster")
	for i, r := range name {
		ok := r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || i > 0 && r == '-'
		if !ok || len(name) > 30 {
			return "", exit(exitUsage, "--cluster is %q; it must be at most 30 lower-case letters, digits and dashes, and not begin with a dash", name)
		}
	}
	if name == "" {
		return "", exit(exitUsage, "--cluster must not be empty")
	}
	return name, nil
}
