package bench

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// Usage is what this whole process, with all its roles and the load, has used.
type Usage struct {
	CPU     time.Duration `json:"cpu_ns"`          // user and system time
	Live    uint64        `json:"live_bytes"`      // reachable after a collection
	Peak    uint64        `json:"peak_rss_bytes"`  // the most resident memory ever; 0 where the system does not tell
	Alloc   uint64        `json:"allocated_bytes"` // all that was ever allocated
	Collect uint32        `json:"collections"`
}

// cpu is the process time so far.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0 // cannot fail for the process itself
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// usage collects garbage first, so it is not for use while something is timed:
// twice, because pools and finalizers keep some over the first time.
func usage() Usage {
	u := Usage{Peak: peak()}
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	u.CPU, u.Live, u.Alloc, u.Collect = cpu(), m.HeapAlloc, m.TotalAlloc, m.NumGC
	return u
}

// peak reads the high-water mark of the resident set (proc(5), VmHWM).
func peak() uint64 {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		var kib uint64
		if n, _ := fmt.Sscanf(line, "VmHWM: %d kB", &kib); n == 1 {
			return kib << 10
		}
	}
	return 0
}

// machine says what was measured on.
func machine() string {
	return fmt.Sprintf("%s/%s, %d cores, %s, %s", runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), processor(), runtime.Version())
}

// processor is the name that the system gives the processor, where it tells.
func processor() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown processor"
	}
	for line := range strings.Lines(string(text)) {
		if name, value, _ := strings.Cut(line, ":"); strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown processor"
}
