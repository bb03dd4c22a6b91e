package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	agentapi "github.com/mesopool/mesopool/agent/api"
)

type taskRow struct {
	ID    string `json:"id"`
	App   string `json:"appId"`
	State string `json:"state"`
	Host  string `json:"host"`
	Ports []int  `json:"ports"`
	Agent string `json:"slaveId"`
	Since string `json:"startedAt"`
}

func newTask() *cobra.Command {
	cmd := &cobra.Command{Use: "task", Short: "Look at tasks and into them"}
	clientFlags(cmd)
	list := &cobra.Command{Use: "list", Short: "List the tasks of all apps", Args: noArgs, RunE: taskList}
	logs := &cobra.Command{Use: "logs TASK", Short: "Print what a task wrote", Args: exactArgs(1, "a task's ID, or the beginning of one"), RunE: taskLogs}
	logs.Flags().BoolP("follow", "f", false, "go on until the task ends")
	logs.Flags().Int("tail", 0, "only the last lines; 0: all")
	exec := &cobra.Command{
		Use: "exec TASK -- COMMAND [ARG…]", Short: "Run a command in a task's container", RunE: taskExec,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) < 2 {
				return exit(exitUsage, "this command takes a task's ID and a command to run")
			}
			return nil
		},
	}
	exec.Flags().BoolP("tty", "t", false, "with a terminal")
	exec.Flags().BoolP("interactive", "i", false, "pass standard input on")
	exec.Flags().String("user", "", "as this user")
	cmd.AddCommand(list, logs, exec)
	return cmd
}

func (c *client) tasks(ctx context.Context) ([]taskRow, error) {
	var answer struct {
		Tasks []taskRow `json:"tasks"`
	}
	err := c.call(ctx, "GET", c.marathon, "/v2/tasks", nil, &answer)
	return answer.Tasks, err
}

func taskList(cmd *cobra.Command, _ []string) error {
	c, _, err := newClient(cmd)
	if err != nil {
		return err
	}
	rows, err := c.tasks(cmd.Context())
	if err != nil {
		return err
	}
	return c.print(rows, func(w io.Writer) {
		t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
		fmt.Fprintln(t, "ID\tAPP\tSTATE\tADDRESS\tSTARTED")
		for _, r := range rows {
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", r.ID, r.App, strings.TrimPrefix(r.State, "TASK_"), addressOf(&r), r.Since)
		}
		t.Flush()
	})
}

func addressOf(r *taskRow) string {
	if len(r.Ports) == 0 {
		return r.Host
	}
	ports := make([]string, len(r.Ports))
	for i, p := range r.Ports {
		ports[i] = strconv.Itoa(p)
	}
	return r.Host + ":" + strings.Join(ports, ",")
}

// find resolves a task's ID, or a beginning of one that fits only one task, to
// the ID and the address of its agent.
func (c *client) find(ctx context.Context, prefix string) (id, agent string, err error) {
	var state struct {
		Agents []struct {
			ID  string `json:"id"`
			PID string `json:"pid"`
		} `json:"slaves"`
		Frameworks []struct {
			Tasks []struct {
				ID    string `json:"id"`
				Agent string `json:"slave_id"`
			} `json:"tasks"`
		} `json:"frameworks"`
	}
	if err := c.call(ctx, "GET", c.master, "/state", nil, &state); err != nil {
		return "", "", err
	}
	on := ""
	for _, f := range state.Frameworks {
		for _, t := range f.Tasks {
			switch {
			case t.ID == prefix:
				id, on = t.ID, t.Agent
			case strings.HasPrefix(t.ID, prefix) && id != prefix:
				if id != "" {
					return "", "", exit(exitUsage, "%q is the beginning of several tasks, %s and %s among them; write more of it", prefix, id, t.ID)
				}
				id, on = t.ID, t.Agent
			}
		}
	}
	for _, a := range state.Agents {
		if a.ID == on {
			_, agent, _ = strings.Cut(a.PID, "@")
		}
	}
	if id == "" || agent == "" {
		return "", "", exit(exitNotFound, "there is no task %q; `mesopool task list` shows all", prefix)
	}
	return id, agent, nil
}

func taskLogs(cmd *cobra.Command, args []string) error {
	c, v, err := newClient(cmd)
	if err != nil {
		return err
	}
	id, agent, err := c.find(cmd.Context(), args[0])
	if err != nil {
		return err
	}
	q := url.Values{"task": {id}, "tail": {strconv.Itoa(v.GetInt("tail"))}, "follow": {strconv.FormatBool(v.GetBool("follow"))}}
	req, err := http.NewRequestWithContext(cmd.Context(), "GET", c.url(agent, "/logs?"+q.Encode()), nil)
	if err != nil {
		return err
	}
	resp, err := (&http.Client{Transport: c.http.Transport}).Do(req) // without a limit of time
	if err != nil {
		return agentUnreachable(agent, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(resp.Body)
		return refusal(resp, text)
	}
	_, err = copyFrames(resp.Body, cmd.OutOrStdout(), cmd.ErrOrStderr())
	return err
}

func agentUnreachable(agent string, err error) error {
	return exit(exitUnreachable, "the agent at %s does not answer from here: %w", agent, err)
}

// copyFrames writes what frames carry until the stream ends; code is the exit
// code of a command, 0 when there was none.
func copyFrames(r io.Reader, out, errOut io.Writer) (code int, err error) {
	for {
		kind, data, err := agentapi.ReadFrame(r)
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, context.Canceled):
			return code, nil
		case err != nil:
			return code, err
		}
		switch kind {
		case agentapi.FrameStdout:
			_, err = out.Write(data)
		case agentapi.FrameStderr:
			_, err = errOut.Write(data)
		case agentapi.FrameExit:
			return strconv.Atoi(string(data))
		case agentapi.FrameError:
			return 0, exit(exitRefused, "%s", data)
		}
		if err != nil {
			return code, err
		}
	}
}

func taskExec(cmd *cobra.Command, args []string) error {
	c, v, err := newClient(cmd)
	if err != nil {
		return err
	}
	id, agent, err := c.find(cmd.Context(), args[0])
	if err != nil {
		return err
	}
	tty := v.GetBool("tty")
	q := url.Values{"task": {id}, "arg": args[1:], "tty": {strconv.FormatBool(tty)}, "user": {v.GetString("user")}}
	conn, r, err := c.upgrade(cmd.Context(), agent, "/exec?"+q.Encode())
	if err != nil {
		return err
	}
	defer conn.Close()
	if tty {
		restore, err := rawTerminal(conn)
		if err != nil {
			return err
		}
		defer restore()
	}
	go sendInput(conn, cmd.InOrStdin(), v.GetBool("interactive"))
	code, err := copyFrames(r, cmd.OutOrStdout(), cmd.ErrOrStderr())
	if err == nil && code != 0 {
		return &exitError{code, errors.New("")}
	}
	return err
}

// upgrade asks for a stream of frames in both directions.
func (c *client) upgrade(ctx context.Context, host, path string) (net.Conn, *bufio.Reader, error) {
	dial := (&net.Dialer{}).DialContext
	if strings.HasPrefix(c.url(host, path), "https:") {
		dial = dialer(c.tls)
	}
	conn, err := dial(ctx, "tcp", host)
	if err != nil {
		return nil, nil, agentUnreachable(host, err)
	}
	fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nContent-Length: 0\r\n\r\n", path, host)
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		conn.Close()
		return nil, nil, agentUnreachable(host, err)
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		text, _ := io.ReadAll(resp.Body)
		conn.Close()
		return nil, nil, refusal(resp, text)
	}
	return conn, r, nil
}

func sendInput(conn net.Conn, in io.Reader, interactive bool) {
	buf := make([]byte, 32<<10)
	for interactive {
		n, err := in.Read(buf)
		if n > 0 && agentapi.WriteFrame(conn, agentapi.FrameStdin, buf[:n]) != nil {
			return
		}
		if err != nil {
			break
		}
	}
	agentapi.WriteFrame(conn, agentapi.FrameStdin, nil)
}

// rawTerminal passes keys on as they are typed, and tells the size.
func rawTerminal(conn net.Conn) (restore func(), err error) {
	fd := int(os.Stdin.Fd())
	if !term.IsTerminal(fd) {
		return func() {}, nil
	}
	old, err := term.MakeRaw(fd)
	if err != nil {
		return nil, err
	}
	if w, h, err := term.GetSize(fd); err == nil {
		agentapi.WriteFrame(conn, agentapi.FrameResize, []byte{byte(h >> 8), byte(h), byte(w >> 8), byte(w)})
	}
	return func() { term.Restore(fd, old) }, nil
}
