package docker

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/task"
)

var someone = task.Owner{Cluster: "mesos", Agent: "dc-1"}

// fake is a Docker engine of canned answers.
type fake struct {
	api     string // as its ping tells it; "" tells none
	mu      sync.Mutex
	calls   []string // method and path without version, without pings
	paths   []string // as they came
	answers map[string]http.HandlerFunc
}

var versionPrefix = regexp.MustCompile(`^/v[0-9.]+`)

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := versionPrefix.ReplaceAllString(r.URL.Path, "")
	if path == "/_ping" {
		w.Header().Set("Api-Version", f.api)
		return
	}
	call := r.Method + " " + path
	f.mu.Lock()
	f.calls, f.paths = append(f.calls, call), append(f.paths, r.URL.Path)
	answer := f.answers[call]
	f.mu.Unlock()
	if answer == nil {
		answer = says(http.StatusNotFound, "page not found: "+call)
	}
	answer(w, r)
}

func (f *fake) on(call string, answer http.HandlerFunc) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.answers == nil {
		f.answers = map[string]http.HandlerFunc{}
	}
	f.answers[call] = answer
}

func (f *fake) called() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(f.calls, ", ")
}

// says answers with the engine's form of an error.
func says(status int, message string) http.HandlerFunc {
	return gives(status, map[string]string{"message": message})
}

func gives(status int, body any) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		if body != nil {
			json.NewEncoder(w).Encode(body)
		}
	}
}

// inTurn gives each answer once, the last one for ever.
func inTurn(answers ...http.HandlerFunc) http.HandlerFunc {
	var mu sync.Mutex
	return func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		answer := answers[0]
		if len(answers) > 1 {
			answers = answers[1:]
		}
		mu.Unlock()
		answer(w, r)
	}
}

// cutOff ends the connection without an answer.
func cutOff(w http.ResponseWriter, _ *http.Request) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err == nil {
		conn.Close()
	}
}

func created(id string) http.HandlerFunc {
	return gives(http.StatusCreated, map[string]any{"Id": id})
}

var started = gives(http.StatusNoContent, nil)

// inspected answers like docker inspect.
func inspected(id, name, status string, labels map[string]string) http.HandlerFunc {
	return gives(http.StatusOK, map[string]any{
		"Id": id, "Name": "/" + name, "State": map[string]any{"Status": status}, "Config": map[string]any{"Labels": labels},
	})
}

// newFake serves f and returns a provider on it.
func newFake(t *testing.T, f *fake, o Options) *Engine {
	t.Helper()
	if f.api == "" {
		f.api = "1.41"
	}
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	o.Host = strings.Replace(server.URL, "http://", "tcp://", 1)
	if o.DockerConfig == "" {
		o.DockerConfig = filepath.Join(t.TempDir(), "none.json")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	e, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

func appSpec() task.Spec {
	return task.Spec{Key: task.Key{Framework: "f", ID: "t"}, Image: "app:1"}
}

func ours() map[string]string { return provider.Labels(someone, appSpec()) }

// certificates writes ca.pem, cert.pem and key.pem of a new authority, for
// 127.0.0.1 and for clients, and returns the directory.
func certificates(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, block := range map[string]*pem.Block{
		"ca.pem": {Type: "CERTIFICATE", Bytes: der}, "cert.pem": {Type: "CERTIFICATE", Bytes: der}, "key.pem": {Type: "EC PRIVATE KEY", Bytes: keyDER},
	} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// serveTLS serves f with the directory's certificate to clients that it trusts.
func serveTLS(t *testing.T, f *fake, dir string) (host string) {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	server := httptest.NewUnstartedServer(f)
	server.Config.ErrorLog = slog.NewLogLogger(slog.NewTextHandler(io.Discard, nil), slog.LevelError)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}
	server.StartTLS()
	t.Cleanup(server.Close)
	return strings.Replace(server.URL, "https://", "tcp://", 1)
}

var info = gives(http.StatusOK, map[string]any{"NCPU": 4, "MemTotal": 8 << 30, "SystemTime": "2026-01-02T03:04:05.6Z"})

// streams answers with lines of JSON, and then waits for the client to leave
// unless it is to end.
func streams(end bool, lines ...any) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		for _, l := range lines {
			text, err := json.Marshal(l)
			if err != nil {
				panic(err)
			}
			fmt.Fprintln(w, string(text))
		}
		w.(http.Flusher).Flush()
		if !end {
			<-r.Context().Done()
		}
	}
}
