package docker

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/docker/docker/api/types/container"

	"github.com/mesopool/mesopool/provider"
)

// maxStats bounds what an engine may answer about one container.
const maxStats = 1 << 20

// Stats is part of provider.Statser.
func (e *Engine) Stats(ctx context.Context, id string) (provider.Stats, error) {
	out, err := e.stats(ctx, id)
	if err != nil {
		return out, e.fail("stats", id, notFound(err))
	}
	return out, nil
}

func (e *Engine) stats(ctx context.Context, id string) (provider.Stats, error) {
	if err := e.ready(ctx); err != nil {
		return provider.Stats{}, err
	}
	answer, err := e.cli.ContainerStatsOneShot(ctx, id)
	if err != nil {
		return provider.Stats{}, err
	}
	defer answer.Body.Close()
	var s container.StatsResponse
	if err := json.NewDecoder(io.LimitReader(answer.Body, maxStats)).Decode(&s); err != nil {
		return provider.Stats{}, fmt.Errorf("the engine's statistics cannot be read: %w", err)
	}
	return readStats(&s), nil
}

func readStats(s *container.StatsResponse) provider.Stats {
	out := provider.Stats{
		Time: s.Read, UserCPU: time.Duration(s.CPUStats.CPUUsage.UsageInUsermode), SystemCPU: time.Duration(s.CPUStats.CPUUsage.UsageInKernelmode),
		Throttled: time.Duration(s.CPUStats.ThrottlingData.ThrottledTime), Periods: uint32(s.CPUStats.ThrottlingData.Periods),
		Waited: uint32(s.CPUStats.ThrottlingData.ThrottledPeriods), MemUsed: s.MemoryStats.Usage, MemLimit: s.MemoryStats.Limit,
		Processes: uint32(s.PidsStats.Current),
	}
	if out.UserCPU+out.SystemCPU == 0 { // these are counted in ticks: who mostly sleeps has none yet
		out.UserCPU = time.Duration(s.CPUStats.CPUUsage.TotalUsage)
	}
	// Names of cgroup v1 and v2 for pages that can be had back at once.
	for _, name := range []string{"total_inactive_file", "inactive_file"} {
		if v := s.MemoryStats.Stats[name]; v > 0 && v <= out.MemUsed {
			out.MemCached = v
			out.MemUsed -= v
			break
		}
	}
	for _, n := range s.Networks {
		out.NetReceive = addNet(out.NetReceive, provider.NetStats{Bytes: n.RxBytes, Packets: n.RxPackets, Errors: n.RxErrors, Dropped: n.RxDropped})
		out.NetSend = addNet(out.NetSend, provider.NetStats{Bytes: n.TxBytes, Packets: n.TxPackets, Errors: n.TxErrors, Dropped: n.TxDropped})
	}
	return out
}

func addNet(a, b provider.NetStats) provider.NetStats {
	return provider.NetStats{Bytes: a.Bytes + b.Bytes, Packets: a.Packets + b.Packets, Errors: a.Errors + b.Errors, Dropped: a.Dropped + b.Dropped}
}

// UpdateMemory is part of provider.MemoryUpdater. Memory with swap is twice the
// memory, as engines have it where a launch says nothing.
func (e *Engine) UpdateMemory(ctx context.Context, id string, mib uint64) error {
	if err := e.ready(ctx); err != nil {
		return e.fail("update", id, err)
	}
	if mib < 6 || mib > 1<<40 {
		return e.fail("update", id, fmt.Errorf("%w: a memory limit of %d MiB; engines take 6 MiB or more", provider.ErrRejected, mib))
	}
	limit := int64(mib) << 20
	_, err := e.cli.ContainerUpdate(ctx, id, container.UpdateConfig{Resources: container.Resources{Memory: limit, MemorySwap: 2 * limit}})
	if err != nil {
		return e.fail("update", id, notFound(err))
	}
	return nil
}
