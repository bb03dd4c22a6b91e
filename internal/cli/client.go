package cli

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/viper"
)

// client talks to the cluster's servers.
type client struct {
	printer
	marathon string // host:port
	master   string
	secure   map[string]bool // the servers that speak TLS
	self     identity        // to the master
	tls      *tls.Config     // of those that speak TLS
	http     *http.Client
}

// printer writes results for people, or for programs.
type printer struct {
	json bool
	out  io.Writer
}

// clientFlags are common to the commands that ask servers. MARATHON and
// MESOS_MASTER are what env.sh exports.
func clientFlags(cmd *cobra.Command) {
	f := cmd.PersistentFlags()
	f.String("marathon", "127.0.0.1:8080", "Marathon, as host:port (also MARATHON)")
	f.String("master", "127.0.0.1:5050", "the master, as host:port or https://host:port (also MESOS_MASTER)")
	identityFlags(f)
	tlsClientFlags(f)
	f.Bool("json", false, "print JSON instead of a table")
}

var clientAliases = map[string]string{"marathon": "MARATHON", "master": "MESOS_MASTER"}

func newClient(cmd *cobra.Command) (*client, *viper.Viper, error) {
	v, err := settings(cmd, clientAliases)
	if err != nil {
		return nil, nil, err
	}
	c := &client{printer: printer{json: v.GetBool("json"), out: cmd.OutOrStdout()}, secure: map[string]bool{}}
	c.marathon, c.master = c.host(v.GetString("marathon")), c.host(v.GetString("master"))
	if c.self, err = identityFrom(v); err != nil {
		return nil, nil, err
	}
	config, err := tlsClient(v)
	if err != nil {
		return nil, nil, err
	}
	if config != nil {
		c.secure[c.master] = true
	}
	if c.tls = config; c.tls == nil {
		c.tls = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	c.http = &http.Client{Timeout: time.Minute, Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: c.tls}}
	return c, v, nil
}

// host is an address without its scheme, which is remembered.
func (c *client) host(address string) string {
	host, secure := strings.CutPrefix(address, "https://")
	host = strings.TrimPrefix(host, "http://")
	if secure {
		c.secure[host] = true
	}
	return host
}

// url is that of a path on a server. Agents speak what their master speaks.
func (c *client) url(host, path string) string {
	if c.secure[host] || host != c.marathon && c.secure[c.master] {
		return "https://" + host + path
	}
	return "http://" + host + path
}

// call makes a request and reads its JSON answer into out, which may be nil.
func (c *client) call(ctx context.Context, method, host, path string, body []byte, out any) error {
	req, err := http.NewRequestWithContext(ctx, method, c.url(host, path), bytes.NewReader(body))
	if err != nil {
		return exit(exitUsage, "%q is no address: %w", host, err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	if host == c.master {
		c.self.sign(req)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return exit(exitUnreachable, "%s does not answer: %w", host, errors.Unwrap(err))
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return exit(exitUnreachable, "%s hung up: %w", host, err)
	}
	if resp.StatusCode/100 != 2 {
		return refusal(resp, text)
	}
	if out == nil || len(text) == 0 {
		return nil
	}
	if err := json.Unmarshal(text, out); err != nil {
		return fmt.Errorf("%s answered what is not the expected JSON: %w", host, err)
	}
	return nil
}

// refusal turns an error answer into a sentence.
func refusal(resp *http.Response, text []byte) error {
	code := exitRefused
	if resp.StatusCode == http.StatusNotFound {
		code = exitNotFound
	}
	var body struct {
		Message string `json:"message"`
		Details any    `json:"details"`
	}
	if json.Unmarshal(text, &body) != nil || body.Message == "" {
		return exit(code, "%s: %s", resp.Status, strings.TrimSpace(string(text)))
	}
	return exit(code, "%s", strings.TrimSpace(body.Message+" "+details(body.Details)))
}

func details(d any) string {
	switch d := d.(type) {
	case string:
		return d
	case []any:
		var parts []string
		for _, item := range d {
			if m, ok := item.(map[string]any); ok {
				parts = append(parts, fmt.Sprintf("%v: %v", m["path"], m["errors"]))
			}
		}
		return "(" + strings.Join(parts, "; ") + ")"
	}
	return ""
}

// print writes v as JSON, or what table writes.
func (c *printer) print(v any, table func(io.Writer)) error {
	if !c.json {
		table(c.out)
		return nil
	}
	e := json.NewEncoder(c.out)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
