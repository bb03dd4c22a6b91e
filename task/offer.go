package task

import "github.com/mesopool/mesopool/resources"

// Launch is what is done with offers: first the changes of what they hold, in
// order, then the tasks, then the groups.
type Launch struct {
	Changes []resources.Operation
	Tasks   []Spec
	Groups  []Group
}

// Empty says whether there is nothing to do.
func (l *Launch) Empty() bool { return len(l.Changes)+len(l.Tasks)+len(l.Groups) == 0 }

// Group is tasks that share what their pod has. Pod is the executor: its Pod is
// the executor's ID.
type Group struct {
	Pod   Spec
	Tasks []Spec
}

// Offer is a part of an agent that a framework may use.
type Offer struct {
	ID         string
	Agent      string
	Hostname   string
	URL        string // of the agent's HTTP API, as in http://10.0.0.1:5051/slave(1); "": not told
	Role       string
	Region     string
	Zone       string
	Attributes []Label             // scalars as text, sets joined by commas
	Resources  resources.Resources // allocated to Role
}
