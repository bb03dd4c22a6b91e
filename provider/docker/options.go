package docker

import (
	"log/slog"
	"os"
	"path/filepath"

	"github.com/mesopool/mesopool/resources"
)

// Options say which engine to use and how. The zero value uses the local
// engine and its default network.
type Options struct {
	// Host is the engine's endpoint: unix:///path, tcp://host:port. "" means
	// unix:///var/run/docker.sock (DOCKER_HOST).
	Host string
	// CertPath is a directory with ca.pem, cert.pem and key.pem; "" means no
	// TLS (DOCKER_CERT_PATH).
	CertPath string
	// TLSVerify checks the engine's certificate against ca.pem
	// (DOCKER_TLS_VERIFY). Without it, TLS trusts anybody.
	TLSVerify bool
	// APIVersion pins the API's version, such as "1.41", and takes whatever
	// comes; "" negotiates it and asks for 1.40 at least (DOCKER_API_VERSION).
	APIVersion string

	// Cluster is the value of the label mesopool.cluster on what is created for
	// the whole cluster: its network.
	Cluster string
	// Network is the cluster's own network, a bridge that is created when it is
	// absent. "" means the engine's default network, which has no names.
	Network string
	// PublishLoopback publishes the tasks' ports on free ports of 127.0.0.1,
	// where the containers' addresses cannot be reached (Docker Desktop).
	PublishLoopback bool

	// DefaultImage runs tasks that name none; "" refuses them.
	DefaultImage string
	// DockerConfig is the file with the registries' credentials; "" means
	// ~/.docker/config.json. It need not exist.
	DockerConfig string
	// PullProgress, unless it is nil, is told how a pull fares, one line at a
	// time, such as "12.1 of 30.0 MB". It is called from several goroutines.
	PullProgress func(image, text string)

	// Grant replaces amounts of the engine's capacity by name. Without it, cpus
	// and mem are all that the engine has, and disk is DefaultDisk.
	Grant resources.Scalars
	// PodImage is the image of the containers that hold a pod's network; its own
	// command must wait until it is stopped. "" means one that is made of
	// PodBinary, once.
	PodImage string
	// PodBinary is a static program that waits when its argument is "pause"; ""
	// means this program itself.
	PodBinary string
	// AllowPrivileged lets tasks have privileges over the engine's host.
	AllowPrivileged bool

	Log *slog.Logger // nil means slog.Default()
}

// DefaultDisk is the capacity's disk in MiB: engines do not tell theirs.
const DefaultDisk = 100 << 10

// OptionsFromEnv reads the variables that the docker command reads; getenv is
// os.Getenv or a stand-in.
func OptionsFromEnv(getenv func(string) string) Options {
	o := Options{
		Host:       getenv("DOCKER_HOST"),
		CertPath:   getenv("DOCKER_CERT_PATH"),
		TLSVerify:  getenv("DOCKER_TLS_VERIFY") != "",
		APIVersion: getenv("DOCKER_API_VERSION"),
	}
	if dir := getenv("DOCKER_CONFIG"); dir != "" {
		o.DockerConfig = filepath.Join(dir, "config.json")
	}
	if o.TLSVerify && o.CertPath == "" {
		o.CertPath = filepath.Join(getenv("HOME"), ".docker")
	}
	return o
}

const defaultHost = "unix:///var/run/docker.sock"

func (o Options) withDefaults() Options {
	if o.Host == "" {
		o.Host = defaultHost
	}
	if o.DockerConfig == "" {
		if home, err := os.UserHomeDir(); err == nil {
			o.DockerConfig = filepath.Join(home, ".docker", "config.json")
		}
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	return o
}
