package bench

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/mesopool/mesopool/provider/memory"
	"github.com/mesopool/mesopool/store"
	"github.com/mesopool/mesopool/task"
)

// TestReport: every measurement is asked for, round by round, and shows in the
// text and in the plot.
func TestReport(t *testing.T) {
	var asked []string
	o := ReportOptions{
		Sizes: []int{1000, 10_000}, Rounds: 2, Idle: time.Second, Recover: 500, Agents: 50, Engine: []int{4}, Say: func(string) {},
		Command: func(_ context.Context, args ...string) ([]byte, error) {
			line := strings.Join(args, " ")
			asked = append(asked, line)
			switch {
			case strings.HasPrefix(line, "bench master"):
				return json.Marshal([]MasterResult{{Agents: 50, Tasks: 500, Changes: 40_000}})
			case strings.Contains(line, "docker"):
				return json.Marshal(single{[]Result{{Name: bareLoop, PerSecond: 10}, {Name: "mesopool", PerSecond: 8}, {Name: bareLoop, PerSecond: 10}}})
			default:
				return json.Marshal(single{[]Result{{Tasks: 1000 * len(asked), PerSecond: 12_000, CPUPerTask: 99 * time.Microsecond, Usage: Usage{Live: 4_000_000}}}})
			}
		},
	}
	r, err := MakeReport(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if len(asked) != 2*2+2+2+2 {
		t.Errorf("asked for %d measurements:\n%s", len(asked), strings.Join(asked, "\n"))
	}
	var text, plot strings.Builder
	r.Write(&text)
	for _, want := range []string{"12000/s (12000/s – 12000/s)", "99µs", "40000/s", "25.0 %", "50 agents, 500 tasks"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the report does not say %q:\n%s", want, &text)
		}
	}
	r.Plot(&plot)
	d := xml.NewDecoder(strings.NewReader(plot.String()))
	points := 0
	for {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("the plot is no XML: %v", err)
		}
		if e, ok := tok.(xml.StartElement); ok && e.Name.Local == "circle" {
			points++
		}
	}
	if points != 3*4 {
		t.Errorf("the plot has %d points for three panels of four measurements", points)
	}
}

// TestMaster runs the whole measurement, small.
func TestMaster(t *testing.T) {
	r, err := RunMaster(t.Context(), MasterOptions{Agents: 20, Frameworks: 2, Tasks: 200})
	if err != nil {
		t.Fatal(err)
	}
	if r.Launches <= 0 || r.Changes <= 0 || r.Failover <= 0 || r.Allocation <= 0 || r.State.Bytes < 10_000 || r.GetState.Bytes < 10_000 || r.AcceptP99 < r.AcceptP50 {
		t.Errorf("some of it was not measured: %+v", r)
	}
}

// TestMarathon runs the whole measurement, small.
func TestMarathon(t *testing.T) {
	r, err := RunMarathon(t.Context(), MarathonOptions{
		Cluster: Options{
			Provider: memory.New(memory.Config{}), Owner: task.Owner{Cluster: "bench", Agent: "agent"},
			Store: func() (store.Store, error) { return store.NewMemory(), nil },
		},
		Sizes: []int{1, 5}, Apps: 3, PerApp: 2, Reads: 20, Subscribers: 2,
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Deploy) != 2 || r.Deploy[1].Took <= 0 || r.Tasks != 12 || r.OneP99 < r.OneP50 || r.AllBytes < 1000 || r.GzipBytes <= 0 || r.GzipBytes >= r.AllBytes || r.SameP99 <= 0 || r.Events <= 0 {
		t.Errorf("some of it was not measured: %+v", r)
	}
}
