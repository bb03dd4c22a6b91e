package web

import "time"

// Amount is a resource with how much of it is used and offered, in its unit.
type Amount struct {
	Name    string
	Unit    string
	Total   float64
	Used    float64
	Offered float64
}

// UsedPercent is the part in use, 0 to 100.
func (a Amount) UsedPercent() float64 { return percent(a.Used, a.Total) }

// OfferedPercent is the part on offer, 0 to 100.
func (a Amount) OfferedPercent() float64 { return percent(a.Offered, a.Total) }

func percent(part, all float64) float64 {
	if all <= 0 {
		return 0
	}
	return min(100, part/all*100)
}

// Cluster is the master's page.
type Cluster struct {
	Name       string
	Master     string // host:port
	ID         string
	Version    string
	Started    time.Time
	Amounts    []Amount
	Counts     []Count
	Agents     []Agent
	Frameworks []Framework
	Tasks      []Task // at most as many as were asked for
	TaskTotal  int    // that fit the filter
	Filter     string
}

// Count is a number with its name; Bad marks one that should be 0.
type Count struct {
	Name string
	N    int
	Bad  bool
}

// Agent is a row of the agents.
type Agent struct {
	ID, Hostname, Address string
	Connected             bool
	Since                 time.Time
	Tasks                 int
	Amounts               []Amount
}

// Framework is a row of the frameworks.
type Framework struct {
	ID, Name, Roles, Principal, URL string
	Connected                       bool
	Tasks, Offers                   int
	Since                           time.Time
}

// Task is a row of the tasks.
type Task struct {
	ID, Name, Framework, Agent, State, Address string
	Since                                      time.Time
	CPUs, Mem                                  float64
}

// Services is Marathon's page.
type Services struct {
	Name        string
	Address     string
	Framework   string
	Master      string // URL of the master's page
	Connected   bool
	Apps        []App
	Deployments []Deployment
}

// App is a row of the apps with its instances.
type App struct {
	ID                                  string
	Status                              string // Running, Deploying, Suspended, Waiting
	Waiting                             string // why, in a sentence
	Image                               string
	CPUs, Mem                           float64
	Wanted                              int
	Staged, Running, Healthy, Unhealthy int
	LastFailure                         string
	Instances                           []Instance
}

// Instance is one task of an app.
type Instance struct {
	ID, State, Address, Version string
	Health                      string // healthy, unhealthy, unknown
	Since                       time.Time
}

// Part is a segment of an app's bar.
type Part struct {
	Class   string
	Percent float64
	N       int
}

// Parts cuts the app's bar: healthy, running without a verdict, unhealthy,
// staged, and what is still lacking.
func (a App) Parts() []Part {
	all := max(a.Wanted, a.Running+a.Staged, 1)
	unknown := max(0, a.Running-a.Healthy-a.Unhealthy)
	lacking := max(0, a.Wanted-a.Running-a.Staged)
	var out []Part
	for _, p := range []Part{{Class: "healthy", N: a.Healthy}, {Class: "unknown", N: unknown}, {Class: "unhealthy", N: a.Unhealthy}, {Class: "staged", N: a.Staged}, {Class: "lacking", N: lacking}} {
		if p.N > 0 {
			p.Percent = percent(float64(p.N), float64(all))
			out = append(out, p)
		}
	}
	return out
}

// Deployment is a change on its way.
type Deployment struct {
	ID, Apps, Doing string
	Step, Steps     int
}
