package marathon

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const corpusDir = "../../shared/corpus/"

// readers read a definition of a kind of the corpus.
var readers = map[string]func(text []byte) error{
	"apps":   func(text []byte) error { _, err := Read(text, "*"); return err },
	"groups": func(text []byte) error { _, err := ReadGroup(text, "/", "*"); return err },
	"pods":   func(text []byte) error { _, err := ReadPod(text, "*"); return err },
}

// TestCorpusTable: docs/marathon.md says how many of the definitions in the wild
// are taken, and names every one that is not, with the message.
func TestCorpusTable(t *testing.T) {
	doc, err := os.ReadFile("../docs/marathon.md")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(corpusDir); err != nil {
		t.Skipf("the corpus of definitions is not there: %s", corpusDir)
	}
	told := refusedTable(string(doc))
	for _, kind := range slices.Sorted(maps.Keys(readers)) {
		files, _ := filepath.Glob(corpusDir + "marathon-" + kind + "/*.json")
		taken := 0
		for _, f := range files {
			text, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			name := filepath.Base(f)
			got := readers[kind](text)
			if got == nil {
				taken++
				continue
			}
			if want := told[name]; !fits(oneLine(got), want) || want == "" {
				t.Errorf("| `%s` | %s | docs/marathon.md has %q", name, strings.ReplaceAll(oneLine(got), "|", `\|`), want)
			}
			delete(told, name)
		}
		if want := fmt.Sprintf("| %s | %d | %d | %d |", kind, len(files), taken, len(files)-taken); !strings.Contains(string(doc), want) {
			t.Errorf("docs/marathon.md does not have %q", want)
		}
	}
	for name := range told {
		t.Errorf("docs/marathon.md says that %s is refused, and it is taken", name)
	}
}

// refusedTable is the message by file that the page tells.
func refusedTable(doc string) map[string]string {
	_, table, _ := strings.Cut(doc, "#### Refused")
	table, _, _ = strings.Cut(table, "\n#")
	out := map[string]string{}
	for line := range strings.Lines(table) {
		cells := strings.Split(strings.ReplaceAll(line, `\|`, "\x00"), " | ")
		if name, ok := strings.CutPrefix(cells[0], "| `"); ok && len(cells) == 3 {
			out[strings.TrimSuffix(name, "`")] = strings.ReplaceAll(cells[1], "\x00", "|")
		}
	}
	return out
}

func oneLine(err error) string {
	var bad *BadDefinition
	if !errors.As(err, &bad) {
		return err.Error()
	}
	return bad.Error()
}

// fits compares a message with what is told of it, in which … stands for
// anything.
func fits(got, told string) bool {
	pattern := strings.ReplaceAll(regexp.QuoteMeta(told), "…", ".*")
	return regexp.MustCompile("^" + pattern + "$").MatchString(got)
}
