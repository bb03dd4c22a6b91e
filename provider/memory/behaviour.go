package memory

import (
	"strings"
	"time"

	"github.com/mesopool/mesopool/task"
)

// Behaviour is what a simulated container does, for other simulations that
// want to understand the same commands and variables.
type Behaviour struct {
	Forever bool          // runs until it is stopped
	Run     time.Duration // how long, unless Forever
	Code    uint8         // the exit code
	Deaf    bool          // ignores the wish to stop
	Output  []Line        // what it writes
}

// Line is one line of output.
type Line struct {
	After  time.Duration // since the start
	Stderr bool
	Text   string // with its line end
}

// Understand reads a command and its variables ("NAME=value"). known is false
// for a command that is not understood; such a container runs for ever.
func Understand(argv, env []string) (b Behaviour, known bool) {
	p, known := parseArgv(argv)
	if !known {
		p.run = forever
	}
	for _, v := range env {
		key, value, _ := strings.Cut(v, "=")
		p.override(task.Label{Key: key, Value: value})
	}
	b = Behaviour{Forever: p.run == forever, Run: max(p.run, 0), Code: p.code, Deaf: p.deaf}
	for _, l := range p.output {
		b.Output = append(b.Output, Line{l.after, l.stderr, l.text})
	}
	return b, known
}
