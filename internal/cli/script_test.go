package cli

import (
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"mesopool": func() { os.Exit(Main(os.Args[1:], os.Stdout, os.Stderr)) },
	})
}

// TestScripts runs the command line as people do, against whole clusters on
// the simulated data center.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			for _, role := range []string{"MASTER", "AGENT", "MARATHON"} {
				port, err := freePort()
				if err != nil {
					return err
				}
				e.Setenv(role+"_PORT", port)
			}
			e.Setenv("MARATHON", "127.0.0.1:"+e.Getenv("MARATHON_PORT"))
			e.Setenv("MESOS_MASTER", "127.0.0.1:"+e.Getenv("MASTER_PORT"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"waitfor": waitFor, "until": until, "page": page},
	})
}

func freePort() (string, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, err
}

// waitFor waits until a URL answers 200.
func waitFor(ts *testscript.TestScript, _ bool, args []string) {
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		resp, err := http.Get(args[0])
		if err != nil {
			continue
		}
		resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			return
		}
	}
	ts.Fatalf("%s did not answer", args[0])
}

// until repeats a command until it prints the text: until 'text' command args…
func until(ts *testscript.TestScript, neg bool, args []string) {
	out := ""
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		cmd := exec.Command(args[1], args[2:]...)
		cmd.Dir = ts.MkAbs(".")
		cmd.Env = append(os.Environ(), "MARATHON="+ts.Getenv("MARATHON"), "MESOS_MASTER="+ts.Getenv("MESOS_MASTER"), "PATH="+ts.Getenv("PATH"))
		text, _ := cmd.CombinedOutput()
		out = string(text)
		if strings.Contains(out, args[0]) != neg {
			return
		}
	}
	ts.Fatalf("%v never printed %q (negated: %v); last:\n%s", args[1:], args[0], neg, out)
}

// page fetches a URL and looks for texts in it: page URL text…
func page(ts *testscript.TestScript, neg bool, args []string) {
	resp, err := http.Get(args[0])
	ts.Check(err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	ts.Check(err)
	for _, text := range args[1:] {
		if strings.Contains(string(body), text) == neg {
			ts.Fatalf("%s: %q is there: %v\n%s", args[0], text, neg, body)
		}
	}
}
