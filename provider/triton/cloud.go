package triton

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/coder/websocket"
	tritonclient "github.com/joyent/triton-go/client"
	"github.com/joyent/triton-go/compute"
	tritonerrors "github.com/joyent/triton-go/errors"

	"github.com/mesopool/mesopool/provider"
)

// cloud is a client of CloudAPI. triton-go makes the requests; the signer is
// ours.
type cloud struct {
	o    CloudOptions
	base *tritonclient.Client
	tls  *tls.Config
}

func newCloud(o CloudOptions) (*cloud, error) {
	if o.Key.zero() {
		return nil, errors.New("triton: CloudAPI needs an SSH key of the account: name a file or a fingerprint")
	}
	base, err := tritonclient.New(o.URL, "", o.Account, o.Key)
	if err != nil {
		return nil, fmt.Errorf("triton: CloudAPI at %s: %w", o.URL, err)
	}
	c := &cloud{o: o, base: base, tls: &tls.Config{InsecureSkipVerify: o.Insecure}}
	if o.CA != "" {
		if c.tls.RootCAs, err = authorities(o.CA); err != nil {
			return nil, err
		}
	}
	base.HTTPClient.Transport = &http.Transport{
		Proxy: http.ProxyFromEnvironment, TLSClientConfig: c.tls, TLSHandshakeTimeout: 10 * time.Second,
		MaxIdleConnsPerHost: 8, IdleConnTimeout: time.Minute, ResponseHeaderTimeout: 2 * time.Minute,
	}
	return c, nil
}

func authorities(file string) (*x509.CertPool, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("triton: the authorities of CloudAPI: %w", err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("triton: %s holds no certificate", file)
	}
	return pool, nil
}

// maxAnswer bounds what is read of an answer.
const maxAnswer = 64 << 20

// get reads a resource of the account.
func (c *cloud) get(ctx context.Context, path string, query url.Values, into any) error {
	client := *c.base // ExecuteRequest changes it
	body, err := client.ExecuteRequest(ctx, tritonclient.RequestInput{Method: http.MethodGet, Path: "/" + c.o.Account + path, Query: &query})
	if err != nil {
		return c.explain(path, err)
	}
	defer body.Close()
	if err := json.NewDecoder(io.LimitReader(body, maxAnswer)).Decode(into); err != nil {
		return fmt.Errorf("triton: CloudAPI's %s cannot be read: %w", path, err)
	}
	return nil
}

// explain puts an error of CloudAPI on the closed list (sdc-cloudapi:
// docs/index.md, CloudAPI HTTP Responses).
func (c *cloud) explain(path string, err error) error {
	var api *tritonerrors.APIError
	class := error(nil)
	if errors.As(err, &api) {
		switch api.StatusCode {
		case http.StatusUnauthorized, http.StatusForbidden:
			class = provider.ErrDenied
		case 420, http.StatusTooManyRequests, http.StatusServiceUnavailable:
			class = provider.ErrThrottle
		}
	}
	if class != nil {
		return fmt.Errorf("triton: CloudAPI %s: %w: %s", path, class, err)
	}
	return fmt.Errorf("triton: CloudAPI %s: %w", path, err)
}

// packages are all that the account may use.
func (c *cloud) packages(ctx context.Context) ([]compute.Package, error) {
	var all []compute.Package
	err := c.get(ctx, "/packages", nil, &all)
	return all, err
}

// limit is a bound that the operator has set for the account; Value 0 is none.
type limit struct {
	By    string `json:"by"` // machines, ram (MiB) or quota (GiB)
	Value int64  `json:"value"`
	Used  int64  `json:"used"`
}

// limits are none where the operator has not turned them on.
func (c *cloud) limits(ctx context.Context) ([]limit, error) {
	var all []limit
	err := c.get(ctx, "/limits", nil, &all)
	return all, err
}

// follow tells hint of every change of the account's instances until ctx ends
// or the connection does (sdc-cloudapi: docs/index.md, Changefeed).
func (c *cloud) follow(ctx context.Context, hint func()) error {
	date := time.Now().UTC().Format(http.TimeFormat)
	authorization, err := c.o.Key.Sign(date, false)
	if err != nil {
		return err
	}
	address := strings.TrimSuffix(c.o.URL, "/") + "/" + c.o.Account + "/changefeed"
	ws, resp, err := websocket.Dial(ctx, address, &websocket.DialOptions{
		HTTPClient: &http.Client{Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: c.tls}},
		HTTPHeader: http.Header{"Date": {date}, "Authorization": {authorization}, "Accept-Version": {"~9"}},
	})
	if resp != nil && resp.Body != nil {
		defer resp.Body.Close()
	}
	if err != nil {
		return fmt.Errorf("triton: the feed of changes: %w", err)
	}
	defer ws.CloseNow()
	want := `{"resource":"vm","subResources":["state","destroyed","nics"]}`
	if err := ws.Write(ctx, websocket.MessageText, []byte(want)); err != nil {
		return fmt.Errorf("triton: the feed of changes: %w", err)
	}
	hint() // what changed before the feed began
	for {
		if _, _, err := ws.Read(ctx); err != nil {
			return fmt.Errorf("triton: the feed of changes: %w", err)
		}
		hint()
	}
}
