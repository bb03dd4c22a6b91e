package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

type appRow struct {
	ID        string  `json:"id"`
	Instances int     `json:"instances"`
	CPUs      float64 `json:"cpus"`
	Mem       float64 `json:"mem"`
	Staged    int     `json:"tasksStaged"`
	Running   int     `json:"tasksRunning"`
	Healthy   int     `json:"tasksHealthy"`
	Unhealthy int     `json:"tasksUnhealthy"`
	Deploying []any   `json:"deployments"`
	Waiting   string  `json:"waiting,omitempty"`
}

func newApp() *cobra.Command {
	app := &cobra.Command{Use: "app", Short: "Manage services"}
	clientFlags(app)
	list := &cobra.Command{Use: "list", Short: "List the apps", Args: noArgs, RunE: appList}
	add := &cobra.Command{
		Use: "add FILE", Short: "Create an app from a JSON definition; - reads standard input", Args: exactArgs(1, "a file with a definition, or -"), RunE: appAdd,
	}
	scale := &cobra.Command{Use: "scale ID N", Short: "Run N instances of an app", Args: exactArgs(2, "an app's ID and a number of instances"), RunE: appScale}
	restart := &cobra.Command{Use: "restart ID", Short: "Replace all instances of an app, one after the other", Args: exactArgs(1, "an app's ID"), RunE: appRestart}
	rm := &cobra.Command{Use: "rm ID", Short: "Remove an app and end its instances", Args: exactArgs(1, "an app's ID"), RunE: appRemove}
	for _, cmd := range []*cobra.Command{scale, restart} {
		cmd.Flags().Bool("force", false, "override a deployment that is under way")
	}
	app.AddCommand(list, add, scale, restart, rm)
	return app
}

// appPath is the path of an app in the API.
func appPath(id string) string {
	parts := strings.Split(strings.Trim(id, "/"), "/")
	for i := range parts {
		parts[i] = url.PathEscape(parts[i])
	}
	return "/v2/apps/" + strings.Join(parts, "/")
}

func appList(cmd *cobra.Command, _ []string) error {
	c, _, err := newClient(cmd)
	if err != nil {
		return err
	}
	var answer struct {
		Apps []appRow `json:"apps"`
	}
	if err := c.call(cmd.Context(), "GET", c.marathon, "/v2/apps", nil, &answer); err != nil {
		return err
	}
	return c.print(answer.Apps, func(w io.Writer) {
		t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
		fmt.Fprintln(t, "ID\tINSTANCES\tHEALTHY\tCPUS\tMEM\tSTATUS")
		for _, a := range answer.Apps {
			fmt.Fprintf(t, "%s\t%d/%d\t%d\t%v\t%v\t%s\n", a.ID, a.Running, a.Instances, a.Healthy, a.CPUs, a.Mem, appStatus(&a))
		}
		t.Flush()
	})
}

// appStatus is Marathon's word for how an app is.
func appStatus(a *appRow) string {
	switch {
	case a.Waiting != "":
		return "Waiting: " + a.Waiting
	case len(a.Deploying) > 0:
		return "Deploying"
	case a.Instances == 0:
		return "Suspended"
	default:
		return "Running"
	}
}

func appAdd(cmd *cobra.Command, args []string) error {
	c, _, err := newClient(cmd)
	if err != nil {
		return err
	}
	text, err := definition(cmd, args[0])
	if err != nil {
		return err
	}
	var row appRow
	if err := c.call(cmd.Context(), "POST", c.marathon, "/v2/apps", text, &row); err != nil {
		return err
	}
	return c.print(row, func(w io.Writer) { fmt.Fprintf(w, "%s is being deployed\n", row.ID) })
}

func definition(cmd *cobra.Command, file string) ([]byte, error) {
	if file == "-" {
		return io.ReadAll(cmd.InOrStdin())
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, exit(exitNotFound, "the definition cannot be read: %w", err)
	}
	return text, nil
}

type deployment struct {
	ID      string `json:"deploymentId"`
	Version string `json:"version"`
}

// deploy makes a change and says which deployment carries it out.
func deploy(cmd *cobra.Command, method, path string, body any, what string) error {
	c, v, err := newClient(cmd)
	if err != nil {
		return err
	}
	if v.GetBool("force") {
		path += "?force=true"
	}
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	var d deployment
	if err := c.call(cmd.Context(), method, c.marathon, path, text, &d); err != nil {
		return err
	}
	return c.print(d, func(w io.Writer) { fmt.Fprintf(w, "%s (deployment %s)\n", what, d.ID) })
}

func appScale(cmd *cobra.Command, args []string) error {
	n, err := strconv.Atoi(args[1])
	if err != nil || n < 0 {
		return exit(exitUsage, "%q is no number of instances; it must be 0 or more", args[1])
	}
	return deploy(cmd, "PUT", appPath(args[0]), map[string]int{"instances": n}, fmt.Sprintf("%s is being scaled to %d", args[0], n))
}

func appRestart(cmd *cobra.Command, args []string) error {
	return deploy(cmd, "POST", appPath(args[0])+"/restart", struct{}{}, args[0]+" is being restarted")
}

func appRemove(cmd *cobra.Command, args []string) error {
	return deploy(cmd, "DELETE", appPath(args[0]), struct{}{}, args[0]+" is being removed")
}
