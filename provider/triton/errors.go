package triton

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/mesopool/mesopool/provider"
)

// requestID is what sdc-docker puts after its words.
var requestID = regexp.MustCompile(` \([0-9a-f]{8}-[0-9a-f-]{27}\)$`)

// words are sdc-docker's own, without the client's prefix and the ID of the
// request.
func words(err error) string {
	return requestID.ReplaceAllString(strings.TrimSpace(strings.TrimPrefix(err.Error(), "Error response from daemon: ")), "")
}

func says(err error, any ...string) bool {
	if err == nil {
		return false
	}
	for _, s := range any {
		if strings.Contains(err.Error(), s) {
			return true
		}
	}
	return false
}

// The ways in which sdc-docker says that … (sdc-docker: lib/errors.js,
// lib/backends/sdc/containers.js). Statuses alone tell too little: much that is
// the caller's fault is a 500, and no quota left is a 401.
func noImage(err error) bool { return errdefs.IsNotFound(err) && says(err, "No such image") }

func nameTaken(err error) bool { return says(err, `"alias" (Duplicate)`) }

func provisioning(err error) bool {
	return errdefs.IsConflict(err) && says(err, "not allocated to a server yet")
}

func noRoom(err error) bool { return says(err, "NoAllocatableServersError", "Quota exceeded") }

func notNow(err error) bool {
	return errdefs.IsUnavailable(err) || says(err, "ServiceUnavailable", "read-only")
}

// refused says whether trying again cannot help.
func refused(err error) bool {
	if errdefs.IsInvalidArgument(err) || says(err, "(ValidationFailed)", "(Validation)") {
		return true
	}
	return says(err, "no packages match", "no package supports", "invalid value for com.joyent.package", "publish port:", "No command specified",
		"host volumes are not supported", "too many data volumes", "not found")
}

// explain puts an error of sdc-docker on the closed list.
func explain(err error) error {
	switch {
	case err == nil, errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), classified(err):
		return err
	case noRoom(err):
		return fmt.Errorf("%w: %s", provider.ErrCapacity, words(err))
	case notNow(err):
		return fmt.Errorf("%w: %s", provider.ErrThrottle, words(err))
	case errdefs.IsUnauthorized(err), errdefs.IsPermissionDenied(err):
		return fmt.Errorf("%w: %s: is the certificate that of an account of this data center?", provider.ErrDenied, words(err))
	}
	return errors.New(words(err))
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

// fail adds the operation to an error.
func fail(op, what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("triton: %s %s: %w", op, what, explain(err))
}

// notFound marks a 404.
func notFound(err error) error {
	if errdefs.IsNotFound(err) {
		return fmt.Errorf("%w: %s", provider.ErrNotFound, words(err))
	}
	return err
}
