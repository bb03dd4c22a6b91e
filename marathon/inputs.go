package marathon

import (
	"errors"
	"fmt"
	"time"

	"github.com/mesopool/mesopool/task"
)

// Input is one fact or wish that a Core is told.
type Input interface{ input() }

type (
	// Recover gives back what was saved before a restart; it comes first.
	Recover struct {
		FrameworkID string
		Apps        []SavedApp
		Instances   []*Instance
		Deployments []*Deployment
		Groups      []*Group
		Audit       []*AuditEntry
		Residences  []*Residence
		Addresses   []*AgentAddress
	}

	// Change is what a user wants changed, as one deployment.
	Change struct {
		DeploymentID string
		Put          []*App
		Delete       []string
		Restart      []string
		Force        bool
		Create       bool // Put must not exist
		Author

		// Live: what running instances need not be restarted for changes without
		// a restart.
		Live bool
		// Expect are the versions that the change was made from, by app; "*" is
		// any.
		Expect map[string]string

		Groups       []*Group // records to make
		DeleteGroups []string // and to remove

		reverts bool   // goes back from another deployment
		auto    string // why the scheduler scales by itself, "" when it is a user's wish
	}

	// CancelDeployment ends a deployment: with Revert by a new one that
	// restores what was, else as it stands.
	CancelDeployment struct {
		Author
		ID, NewID string
		Revert    bool
	}

	// KillTasks ends instances; they are replaced unless Scale says that the
	// app shall shrink.
	KillTasks struct {
		Author
		DeploymentID string
		IDs          []string
		Scale        bool
		Force        bool
		Wipe         bool // gives what is reserved for them back, with their volumes
	}

	// ResetDelay forgets the launch delay of an app.
	ResetDelay struct{ App string }

	// Subscribed says that a master has taken us; MasterID is its own.
	Subscribed struct{ FrameworkID, MasterID string }

	// Disconnected says that there is no master.
	Disconnected struct{}

	// Offered are offers to use or decline.
	Offered struct{ Offers []task.Offer }

	// Updated is a status of a task.
	Updated struct {
		TaskID, Agent string
		Status        task.Status
	}

	// Checked is the result of a health check.
	Checked struct {
		TaskID string
		Index  int
		Alive  bool
		Cause  string // why not
	}

	// Tick is said when Next has come.
	Tick struct{}
)

func (Recover) input()          {}
func (Change) input()           {}
func (CancelDeployment) input() {}
func (KillTasks) input()        {}
func (ResetDelay) input()       {}
func (Subscribed) input()       {}
func (Disconnected) input()     {}
func (Offered) input()          {}
func (Updated) input()          {}
func (Checked) input()          {}
func (Tick) input()             {}

// Why a wish is refused.
var (
	ErrNotFound = errors.New("does not exist")
	ErrExists   = errors.New("already exists")
)

// Locked is a change of an app that another deployment is changing.
type Locked struct{ Deployments []string }

// Error is Marathon's sentence.
func (l *Locked) Error() string {
	return "App is locked by one or more deployments. Override with the option '?force=true'. View details at '/v2/deployments/<DEPLOYMENT_ID>'."
}

func notFound(kind, id string) error { return fmt.Errorf("%s '%s' %w", kind, id, ErrNotFound) }

// Effect is one thing that the shell must do, after the Saves of the batch are
// committed.
type Effect interface{ effect() }

type (
	// Save makes a value durable under a key; a nil Value deletes it.
	Save struct {
		Key   string
		Value any
	}

	// Accept uses offers.
	Accept struct {
		Offers []string
		Agent  string
		Launch task.Launch
		Refuse time.Duration
	}

	// Decline gives offers back for a time.
	Decline struct {
		Offers []string
		Refuse time.Duration
	}

	// Kill ends a task.
	Kill struct{ TaskID, Agent string }

	// Acknowledge says that an update has arrived.
	Acknowledge struct {
		TaskID, Agent string
		UUID          task.UUID
	}

	// Reconcile asks for the state of tasks, by ID with the agent; none means
	// all.
	Reconcile struct{ Tasks map[string]string }

	// Revive asks for offers; Suppress for none.
	Revive   struct{}
	Suppress struct{}

	// Check makes a health check and answers with Checked.
	Check struct {
		TaskID  string
		Index   int
		Kind    string // HTTP, HTTPS or TCP
		Address string // host:port in the cluster's network
		Public  string // host:port for the outside, "" when it is not published
		Path    string
		Timeout time.Duration
		Ignore1 bool // 1xx answers count as nothing
	}

	// Event is told to whoever listens: Body is a JSON object without the type
	// and the time.
	Event struct {
		Type string
		Time time.Time
		Body map[string]any
	}
)

func (Save) effect()        {}
func (Accept) effect()      {}
func (Decline) effect()     {}
func (Kill) effect()        {}
func (Acknowledge) effect() {}
func (Reconcile) effect()   {}
func (Revive) effect()      {}
func (Suppress) effect()    {}
func (Check) effect()       {}
func (Event) effect()       {}
