package docker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/client"

	"github.com/mesopool/mesopool/provider"
)

// words are the engine's own words, without the client's prefix.
func words(err error) string {
	return strings.TrimPrefix(err.Error(), "Error response from daemon: ")
}

// told is an error with text for people that keeps its cause.
type told struct {
	text  string
	cause []error
}

func (t *told) Error() string   { return t.text }
func (t *told) Unwrap() []error { return t.cause }

func tell(text string, cause ...error) error { return &told{text, cause} }

func reject(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{provider.ErrRejected}, args...)...)
}

func contains(err error, any ...string) bool {
	if err == nil {
		return false
	}
	text := strings.ToLower(err.Error())
	for _, s := range any {
		if strings.Contains(text, s) {
			return true
		}
	}
	return false
}

// plainToTLS is what a TLS server answers to plain HTTP.
const plainToTLS = "http request to an https server"

// explain maps an error to the closed list and says what to do.
func (e *Engine) explain(err error) error {
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), classified(err):
		return err
	case client.IsErrConnectionFailed(err), contains(err, plainToTLS):
		return e.explainConnection(err)
	case errdefs.IsUnauthorized(err), errdefs.IsPermissionDenied(err):
		return fmt.Errorf("%w: the engine at %s: %s", provider.ErrDenied, e.o.Host, words(err))
	case errdefs.IsResourceExhausted(err), contains(err, "toomanyrequests"):
		return fmt.Errorf("%w: %s", provider.ErrThrottle, words(err))
	case contains(err, "no space left on device", "no available ipv4 addresses", "no available ip addresses"):
		return fmt.Errorf("%w: %s", provider.ErrCapacity, words(err))
	}
	return tell(words(err), err)
}

// classified says whether the error is on the closed list already.
func classified(err error) bool {
	for _, class := range []error{
		provider.ErrNotFound, provider.ErrRejected, provider.ErrCapacity, provider.ErrThrottle, provider.ErrDenied,
	} {
		if errors.Is(err, class) {
			return true
		}
	}
	return false
}

func (e *Engine) explainConnection(err error) error {
	switch {
	case errors.Is(err, os.ErrPermission), contains(err, "permission denied"):
		return fmt.Errorf("%w: the socket %s may not be opened: run as a member of its group (often docker) or as root",
			provider.ErrDenied, e.o.Host)
	case contains(err, "x509:", "tls:", "client certification"):
		return fmt.Errorf("%w: no trust between this client and %s: ca.pem, cert.pem and key.pem in %q must belong to that engine: %s",
			provider.ErrDenied, e.o.Host, e.o.CertPath, words(err))
	case contains(err, "without tls", plainToTLS):
		return fmt.Errorf("%w: the engine at %s wants TLS: set the directory of its certificates (DOCKER_CERT_PATH)",
			provider.ErrDenied, e.o.Host)
	}
	text := fmt.Sprintf("no Docker engine answers at %s: start it, or name another endpoint (DOCKER_HOST)", e.o.Host)
	if !contains(err, "cannot connect to the docker daemon") {
		text += ": " + err.Error()
	}
	return tell(text, err)
}

// The ways in which engines say that …
func missingImage(err error) bool {
	return errdefs.IsNotFound(err) && contains(err, "no such image", "image not known", "unable to find")
}

func missingNetwork(err error) bool {
	return contains(err, "network") && contains(err, "not found", "no such network", "could not find network")
}

func nameTaken(err error) bool {
	return errdefs.IsConflict(err) && contains(err, "name") || contains(err, "name is already in use", "is already in use by")
}

// finalAtCreate says whether trying again cannot help: the engine has looked
// at the task and refused it.
func finalAtCreate(err error) bool {
	return errdefs.IsInvalidArgument(err) || errdefs.IsNotFound(err) ||
		contains(err, "invalid reference format", "invalid mount config")
}

// finalAtStart is the same for the start. Engines answer 500 to much that the
// container runtime refuses.
func finalAtStart(err error) bool {
	return errdefs.IsInvalidArgument(err) || contains(err,
		"oci runtime", "failed to create shim", "failed to create task", "executable file not found", "no such file or directory",
		"unable to find user", "permission denied", "error while mounting volume", "could not get container for", "cannot link",
		"missing from the network", "not found in plugins", "user specified ip address", "address already in use")
}
