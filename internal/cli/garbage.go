package cli

import (
	"cmp"
	"fmt"
	"io"
	"net/http"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
)

type garbageRow struct {
	ID    string `json:"id"`
	Name  string `json:"name"`
	Task  string `json:"task_id"`
	Ended string `json:"ended"`
	At    string `json:"at"`
	Why   string `json:"why"`
}

// newGarbage shows what an agent's collection of stopped containers will do. It
// never does it: the agent collects by itself.
func newGarbage() *cobra.Command {
	cmd := &cobra.Command{
		Use: "gc", Short: "Say of each stopped container of an agent why it goes or stays", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v, err := settings(cmd, nil)
			if err != nil {
				return err
			}
			if !v.GetBool("dry-run") {
				return exit(exitUsage, "an agent collects by itself; --dry-run shows what it will do")
			}
			c := &client{printer: printer{json: v.GetBool("json"), out: cmd.OutOrStdout()}, http: &http.Client{Timeout: time.Minute}}
			var rows []garbageRow
			if err := c.call(cmd.Context(), "GET", v.GetString("agent"), "/garbage", nil, &rows); err != nil {
				return err
			}
			return c.print(rows, func(w io.Writer) { garbageTable(w, rows) })
		},
	}
	cmd.Flags().Bool("dry-run", false, "show what the agent will do, and do nothing")
	cmd.Flags().String("agent", "127.0.0.1:5051", "the agent, as host:port")
	cmd.Flags().Bool("json", false, "print JSON instead of a table")
	return cmd
}

func garbageTable(out io.Writer, rows []garbageRow) {
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "CONTAINER\tTASK\tENDED\tNEXT\tWHY")
	for _, r := range rows {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", r.Name, r.Task, cmp.Or(r.Ended, "-"), cmp.Or(r.At, "-"), r.Why)
	}
	w.Flush()
}
