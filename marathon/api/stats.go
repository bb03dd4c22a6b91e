package api

import (
	"slices"
	"time"

	"github.com/mesopool/mesopool/marathon"
	"github.com/mesopool/mesopool/task"
)

// taskStats count an app's tasks by what they were started with; what has no
// tasks is left out.
type taskStats struct {
	AfterScaling *statsOfSome `json:"startedAfterLastScaling,omitempty"`
	Latest       *statsOfSome `json:"withLatestConfig,omitempty"`
	Outdated     *statsOfSome `json:"withOutdatedConfig,omitempty"`
	Total        *statsOfSome `json:"totalSummary,omitempty"`
}

type statsOfSome struct {
	Stats struct {
		Counts   taskCounts `json:"counts"`
		LifeTime *lifeTime  `json:"lifeTime,omitempty"`
	} `json:"stats"`
}

type taskCounts struct {
	Staged    int `json:"staged"`
	Running   int `json:"running"`
	Healthy   int `json:"healthy"`
	Unhealthy int `json:"unhealthy"`
}

type lifeTime struct {
	Average float64 `json:"averageSeconds"`
	Median  float64 `json:"medianSeconds"`
}

func statsOf(v *marathon.AppView, now time.Time) *taskStats {
	var scaled, latest, outdated []*marathon.Instance
	for _, i := range v.Instances {
		if v.App.VersionInfo != nil && marathon.Timestamp(i.Staged) >= v.App.VersionInfo.LastScalingAt {
			scaled = append(scaled, i)
		}
		if i.Version == v.App.ConfigVersion() {
			latest = append(latest, i)
		} else {
			outdated = append(outdated, i)
		}
	}
	return &taskStats{summary(scaled, now), summary(latest, now), summary(outdated, now), summary(v.Instances, now)}
}

func summary(list []*marathon.Instance, now time.Time) *statsOfSome {
	if len(list) == 0 {
		return nil
	}
	out := &statsOfSome{}
	var ages []float64
	for _, i := range list {
		out.Stats.Counts.add(i)
		if i.State == task.Running && !i.Started.IsZero() {
			ages = append(ages, now.Sub(i.Started).Seconds())
		}
	}
	if len(ages) > 0 {
		out.Stats.LifeTime = lifeOf(ages)
	}
	return out
}

func lifeOf(ages []float64) *lifeTime {
	slices.Sort(ages)
	sum := 0.0
	for _, a := range ages {
		sum += a
	}
	n := len(ages)
	return &lifeTime{Average: sum / float64(n), Median: (ages[(n-1)/2] + ages[n/2]) / 2}
}

func (c *taskCounts) add(i *marathon.Instance) {
	switch i.State {
	case task.Staging, task.Starting:
		c.Staged++
	case task.Running, task.Killing:
		c.Running++
	}
	switch h := i.Health(); {
	case h == nil:
	case *h:
		c.Healthy++
	default:
		c.Unhealthy++
	}
}
