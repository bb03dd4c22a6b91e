package triton

import (
	"log/slog"
	"time"

	"github.com/mesopool/mesopool/provider/docker"
	"github.com/mesopool/mesopool/resources"
)

// Options say which data center to use and how.
type Options struct {
	Docker docker.Options // Host, CertPath, TLSVerify of sdc-docker; Grant, DefaultImage, DockerConfig, Log

	// Cloud is the CloudAPI of the same data center; the zero value does without
	// it: no choice of packages, no limits, changes are seen at the next poll.
	Cloud CloudOptions

	// Publish opens the tasks' ports on a public address of their own, each at the
	// same number. Without it they are reached on the account's own network.
	Publish bool

	// Volumes says that the operator has turned NFS volumes on.
	Volumes bool

	// NoCNS leaves out the label that lists a task in Triton's name service under
	// its service name.
	NoCNS bool

	// PackagePrefix is what the names of the packages begin with that tasks may
	// get; "": all that containers can have.
	PackagePrefix string

	// CPUsPerGiB are the processors that go with a package's memory, where the
	// package does not tell any; 0: half a processor.
	CPUsPerGiB float64

	// Poll is the shortest time between two listings; 0: ten seconds.
	Poll time.Duration
}

// CloudOptions say how to reach CloudAPI.
type CloudOptions struct {
	URL      string // https://cloudapi.example.com; "": none
	Account  string // its login
	Key      Signer // of one of its SSH keys
	Insecure bool   // trust any certificate
	CA       string // a file of authorities to trust besides the system's; "": none
}

// demo is what the demo of 2015 offered when nobody said anything else
// (mesos-dockerfiles: agent/Dockerfile): there is no API that tells how much a
// data center has left.
var demo = resources.NewScalars(
	resources.Scalar{Name: "cpus", Amount: resources.Whole(100)},
	resources.Scalar{Name: "mem", Amount: resources.Whole(245760)},
	resources.Scalar{Name: "disk", Amount: resources.Whole(4096)},
)

func (o Options) withDefaults() Options {
	if o.Poll <= 0 {
		o.Poll = 10 * time.Second
	}
	if o.CPUsPerGiB <= 0 {
		o.CPUsPerGiB = 0.5
	}
	if o.Docker.Log == nil {
		o.Docker.Log = slog.Default()
	}
	o.Docker.APIVersion = apiVersion
	o.Docker.Network = ""
	return o
}

// apiVersion is the newest whose shapes sdc-docker has (sdc-docker:
// docs/api/README.md).
const apiVersion = "1.24"
