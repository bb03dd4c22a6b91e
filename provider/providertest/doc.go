// Package providertest is the suite that every backend of package provider
// passes. It is the contract in executable form; what a backend cannot do is
// said with a Quirk and nothing else.
//
// A backend's test:
//
//	providertest.Run(t, func(t *testing.T) providertest.Setup { … }, providertest.Quirks{})
package providertest

import (
	"testing"
	"time"

	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/task"
)

// Program is what the suite wants a container to do.
type Program struct {
	Lines int  // first print "out 1" … to stdout, "err 1" … to stderr, in turns
	Run   bool // then run until stopped, which it obeys at once; else end with Exit
	Exit  int
	Deaf  bool // with Run: ignores the wish to stop, and must be killed
}

// Setup is one backend, fresh for one test. Funcs that are nil say that the
// backend's environment offers no such thing; their tests are skipped by name.
type Setup struct {
	Provider provider.Provider
	Owner    task.Owner // no other test's

	Spec    func(Program) task.Spec // image and command; the suite adds the rest
	Argv    func(Program) []string  // the same as a command line for Exec; nil: no Exec
	Missing string                  // an image that does not exist; "": none is known

	Foreign  func(t *testing.T, name string) (id string)             // makes a running container that is nobody's
	Create   func(t *testing.T, o task.Owner, n string, s task.Spec) // makes what a Launch leaves that could not start
	ReadFile func(t *testing.T, id, path string) []byte              // reads a file of a container

	Vanish func(t *testing.T, id string) // removes a container behind the provider's back
	Break  func(t *testing.T)            // cuts every Watch
}

// Quirks are what a backend does otherwise.
type Quirks struct {
	NoExitCode bool          // ends are told without their code
	NoAddress  bool          // containers have no address of their own
	Settle     time.Duration // how long a change may take to be told; 0 means 10 s
	Grace      time.Duration // the shortest grace that the backend can count; 0 means 1 s
}

func (q Quirks) withDefaults() Quirks {
	if q.Settle == 0 {
		q.Settle = 10 * time.Second
	}
	if q.Grace == 0 {
		q.Grace = time.Second
	}
	return q
}

// Run runs the suite. New is called for every subtest.
func Run(t *testing.T, newSetup func(t *testing.T) Setup, q Quirks) {
	q = q.withDefaults()
	for _, group := range [][]subtest{launchTests, createTests, stopTests, inspectTests, watchTests, streamTests} {
		for _, st := range group {
			t.Run(st.name, func(t *testing.T) { st.run(newFixture(t, newSetup(t), q)) })
		}
	}
}

type subtest struct {
	name string
	run  func(*fixture)
}
