package server

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mesopool/mesopool/master"
	"github.com/mesopool/mesopool/mesos/convert"
	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
)

// frameworkInfo reads what the core wants to know of a framework; the message
// itself travels along.
func frameworkInfo(f *mesosv1.FrameworkInfo) (master.FrameworkInfo, error) {
	has := func(c mesosv1.FrameworkInfo_Capability_Type) bool { return convert.Has(f, c) }
	out := master.FrameworkInfo{
		ID: f.GetId().GetValue(), Name: f.GetName(), User: f.GetUser(), Principal: f.GetPrincipal(), Hostname: f.GetHostname(),
		WebUI: f.GetWebuiUrl(), Checkpoint: f.GetCheckpoint(), FailoverTimeout: seconds(f.GetFailoverTimeout()),
		Capabilities: master.Capabilities{
			Revocable:    has(mesosv1.FrameworkInfo_Capability_REVOCABLE_RESOURCES),
			KillingState: has(mesosv1.FrameworkInfo_Capability_TASK_KILLING_STATE),
			GPU:          has(mesosv1.FrameworkInfo_Capability_GPU_RESOURCES), Shared: has(mesosv1.FrameworkInfo_Capability_SHARED_RESOURCES),
			PartitionAware: has(mesosv1.FrameworkInfo_Capability_PARTITION_AWARE), MultiRole: has(mesosv1.FrameworkInfo_Capability_MULTI_ROLE),
			ReservationRefinement: has(mesosv1.FrameworkInfo_Capability_RESERVATION_REFINEMENT),
			RegionAware:           has(mesosv1.FrameworkInfo_Capability_REGION_AWARE),
		},
	}
	out.Roles = []string{f.GetRole()}
	if out.Capabilities.MultiRole {
		out.Roles = slices.Clone(f.Roles)
	}
	var err error
	if out.MinAllocatable, err = minAllocatable(f); err != nil {
		return out, err
	}
	out.Origin, err = proto.Marshal(f)
	return out, err
}

// century bounds times that come as seconds, so that they fit.
const century = 100 * 365 * 24 * time.Hour

func seconds(s float64) time.Duration {
	if s >= century.Seconds() {
		return century
	}
	return time.Duration(s * float64(time.Second))
}

// frameworkProblem says what is wrong with a framework's description, "" when
// nothing is (master/validation.cpp, framework::validate).
func frameworkProblem(f *mesosv1.FrameworkInfo, suppressed []string) string {
	if problem := rolesProblem(f); problem != "" {
		return problem
	}
	if id := f.GetId().GetValue(); f.Id != nil && id != "" {
		if problem := idProblem(id); problem != "" {
			return problem
		}
	}
	if t := f.GetFailoverTimeout(); math.IsNaN(t) || t < 0 {
		return fmt.Sprintf("The framework failover_timeout (%v) is invalid: Invalid negative duration", t)
	}
	roles := f.Roles
	if !convert.Has(f, mesosv1.FrameworkInfo_Capability_MULTI_ROLE) {
		roles = []string{f.GetRole()}
	}
	for _, role := range suppressed {
		if !slices.Contains(roles, role) {
			return fmt.Sprintf("Suppressed role '%s' is not contained in the list of roles", role)
		}
	}
	for role := range f.OfferFilters {
		if !slices.Contains(roles, role) {
			return fmt.Sprintf("'FrameworkInfo.offer_filters' contains role '%s' that the framework is not subscribed to", role)
		}
	}
	return ""
}

func rolesProblem(f *mesosv1.FrameworkInfo) string {
	if !convert.Has(f, mesosv1.FrameworkInfo_Capability_MULTI_ROLE) {
		if len(f.Roles) > 0 {
			return "'FrameworkInfo.roles' must not be set when the framework is not MULTI_ROLE capable"
		}
		return roleProblem(f.GetRole())
	}
	if f.Role != nil {
		return "'FrameworkInfo.role' must not be set when the framework is MULTI_ROLE capable"
	}
	seen := map[string]bool{}
	for _, role := range f.Roles {
		if seen[role] {
			return fmt.Sprintf("'FrameworkInfo.roles' contains duplicate items: %s", role)
		}
		seen[role] = true
		if problem := roleProblem(role); problem != "" {
			return fmt.Sprintf("'FrameworkInfo.roles' contains invalid role: %s", problem)
		}
	}
	return ""
}

// roleProblem says what is wrong with a role's name (common/roles.cpp).
func roleProblem(role string) string {
	switch {
	case role == "*":
		return ""
	case role == "":
		return "Empty role name is invalid"
	case strings.HasPrefix(role, "/"):
		return fmt.Sprintf("Role '%s' cannot start with a slash", role)
	case strings.HasSuffix(role, "/"):
		return fmt.Sprintf("Role '%s' cannot end with a slash", role)
	case strings.Contains(role, "//"):
		return fmt.Sprintf("Role '%s' cannot contain two adjacent slashes", role)
	}
	for part := range strings.SplitSeq(role, "/") {
		switch {
		case part == "." || part == ".." || part == "*":
			return fmt.Sprintf("Role '%s' cannot include '%s' as a component", role, part)
		case strings.HasPrefix(part, "-"):
			return fmt.Sprintf("Role component '%s' is invalid because it begins with a dash", part)
		case strings.ContainsAny(part, "\x09\x0a\x0b\x0c\x0d\x20\x7f"):
			return fmt.Sprintf("Role component '%s' is invalid because it contains backspace or whitespace", part)
		}
	}
	return ""
}
