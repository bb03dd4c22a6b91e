package memory

import (
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/mesopool/mesopool/task"
)

// forever is the run time of what runs until it is stopped.
const forever time.Duration = -1

// program is what a container does.
type program struct {
	run    time.Duration // forever or how long
	code   uint8
	deaf   bool // ignores the wish to stop
	output []line
}

// line is one line of output, after that long.
type line struct {
	after  time.Duration
	stderr bool
	text   string
}

// The labels or environment variables that say what a container does.
const (
	simRun  = "MESOPOOL_SIM_RUN"
	simExit = "MESOPOOL_SIM_EXIT"
	simDeaf = "MESOPOOL_SIM_DEAF"
)

// programOf reads a task's command, environment and labels, in this order.
func programOf(s *task.Spec) program {
	p, known := programOfCommand(&s.Command)
	if !known {
		p.run = forever
	}
	for _, v := range s.Env {
		p.override(v)
	}
	for _, v := range s.Labels {
		p.override(v)
	}
	return p
}

func (p *program) override(v task.Label) {
	if !strings.HasPrefix(v.Key, "MESOPOOL_SIM_") {
		return
	}
	switch v.Key {
	case simRun:
		if d, err := time.ParseDuration(v.Value); err == nil {
			p.run = d
		}
	case simExit:
		if n, err := strconv.ParseUint(v.Value, 10, 8); err == nil {
			p.code = uint8(n)
			p.run = max(p.run, 0)
		}
	case simDeaf:
		p.deaf = v.Value != "" && v.Value != "0"
	}
}

// programOfCommand says whether it understood the command.
func programOfCommand(c *task.Command) (program, bool) {
	if c.Shell {
		return parseScript(c.Value)
	}
	argv := c.Args
	if c.Value != "" {
		argv = append([]string{c.Value}, c.Args...)
	}
	return parseArgv(argv)
}

func parseArgv(argv []string) (program, bool) {
	if len(argv) == 0 {
		return program{}, false
	}
	if len(argv) == 3 && path.Base(argv[0]) == "sh" && argv[1] == "-c" {
		return parseScript(argv[2])
	}
	var p program
	return p, p.step(strings.Join(argv, " "))
}

// parseScript reads steps joined by ; or && up to one that ends the script.
func parseScript(script string) (program, bool) {
	var p program
	for part := range strings.FieldsFuncSeq(script, func(r rune) bool { return r == ';' || r == '\n' }) {
		for step := range strings.SplitSeq(part, "&&") {
			if !p.step(strings.TrimSpace(step)) {
				return p, false
			}
			if p.run == forever || strings.HasPrefix(strings.TrimSpace(step), "exit") {
				return p, true
			}
			if p.code != 0 {
				break
			}
		}
	}
	return p, true
}

// step adds one simple command; false says that it is not understood.
func (p *program) step(text string) bool {
	word, rest, _ := strings.Cut(strings.TrimPrefix(text, "exec "), " ")
	rest = strings.TrimSpace(rest)
	switch path.Base(word) {
	case "true", ":":
		p.code = 0
	case "false":
		p.code = 1
	case "echo":
		p.echo(rest)
	case "sleep":
		return p.sleep(rest)
	case "trap":
		p.deaf = rest == "'' TERM" || rest == `"" TERM`
		return p.deaf
	case "exit":
		n, err := strconv.ParseUint(rest, 10, 8)
		p.code = uint8(n)
		return err == nil
	default:
		return false
	}
	return true
}

func (p *program) echo(text string) {
	text, toStderr := strings.CutSuffix(text, ">&2")
	text = strings.Trim(strings.TrimSpace(text), `"'`)
	p.output = append(p.output, line{p.run, toStderr, text + "\n"})
	p.code = 0
}

func (p *program) sleep(text string) bool {
	if text == "infinity" {
		p.run = forever
		return true
	}
	seconds, err := strconv.ParseFloat(strings.TrimSuffix(text, "s"), 64)
	if err != nil || seconds < 0 {
		return false
	}
	p.run += time.Duration(seconds * float64(time.Second))
	p.code = 0
	return true
}
