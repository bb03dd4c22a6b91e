package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// evidence names, for the beginning of a command in the README, the test that
// runs it and the words by which it is found there.
var evidence = []struct{ command, file, words string }{
	{"./start.sh", "scripts/e2e.sh", "start.sh"},
	{"CGO_ENABLED=0 go build -o mesopool ./cmd/mesopool", "scripts/e2e.sh", "./cmd/mesopool"},
	{"scripts/test.sh", ".ci/run", "scripts/test.sh"},
	{"eval \"$(bash env.sh", "scripts/e2e.sh", "env.sh"},
	{"curl -H 'Content-Type: application/json' -d @compose/tasks/hello.json", "scripts/e2e.sh", "hello.json"},
	{"curl \"http://$MARATHON/v2/apps/hello/tasks\"", "scripts/e2e.sh", "/tasks"},
	{"curl -X PUT", "scripts/e2e.sh", "\"instances\": "},
	{"curl -X DELETE", "scripts/e2e.sh", "DELETE"},
	{"./mesopool audit", "scripts/e2e.sh", "mesopool audit"},
	{"docker ps --filter label=mesopool.cluster=", "scripts/e2e.sh", "ps -aq --filter \"label=$TASK_LABEL="},
}

// TestREADME: every command that the README shows is run by a test.
func TestREADME(t *testing.T) {
	scripts := ""
	paths, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range paths {
		scripts += read(t, p)
	}
	for _, line := range commands(read(t, "../../README.md")) {
		if words, ours := strings.CutPrefix(line, "./mesopool "); ours {
			parts := strings.Fields(words)
			want := "mesopool " + strings.Join(parts[:min(2, len(parts))], " ")
			if !strings.Contains(scripts, want) && !shown(t, line) {
				t.Errorf("no script in testdata runs %q", want)
			}
			continue
		}
		if !shown(t, line) {
			t.Errorf("no test is known to run %q", line)
		}
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// commands returns the lines of the README's sh blocks, without comments.
func commands(text string) []string {
	var out []string
	inside := false
	for line := range strings.SplitSeq(text, "\n") {
		if strings.HasPrefix(line, "```") {
			inside = line == "```sh"
			continue
		}
		command, _, _ := strings.Cut(line, "  # ")
		if command = strings.TrimSpace(command); inside && command != "" {
			out = append(out, command)
		}
	}
	return out
}

func shown(t *testing.T, line string) bool {
	for _, e := range evidence {
		if strings.HasPrefix(line, e.command) {
			return strings.Contains(read(t, "../../"+e.file), e.words)
		}
	}
	return false
}
