package docker

import (
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
)

// Who has used less than a tick has still used something; of whom nothing is told
// nothing is known.
func TestReadStatsOfCPU(t *testing.T) {
	for name, x := range map[string]struct{ user, system, total, want uint64 }{
		"ticks": {2e9, 1e9, 3.1e9, 3e9}, "less than a tick": {0, 0, 4e6, 4e6}, "nothing is told": {0, 0, 0, 0},
	} {
		var s container.StatsResponse
		s.CPUStats.CPUUsage = container.CPUUsage{UsageInUsermode: x.user, UsageInKernelmode: x.system, TotalUsage: x.total}
		if got := readStats(&s); got.UserCPU+got.SystemCPU != time.Duration(x.want) {
			t.Errorf("%s: %v and %v, want %v together", name, got.UserCPU, got.SystemCPU, time.Duration(x.want))
		}
	}
}
