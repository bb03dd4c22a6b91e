package interop

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// certificate makes one for 127.0.0.1 that is its own authority.
func certificate(t *testing.T, dir string) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "mesopool test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	cert = write(t, dir, "cert", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	return cert, write(t, dir, "key", string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: private})))
}

func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	file := filepath.Join(dir, name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// eventually asks until the answer is the wanted one.
func eventually(t *testing.T, what string, ask func() (string, bool)) {
	t.Helper()
	var last string
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		var ok bool
		if last, ok = ask(); ok {
			return
		}
	}
	t.Fatalf("no %s; the last answer was %s", what, last)
}

// TestSecureCluster: all roles over TLS with certificates on both sides, and
// nobody does anything without a proof and a permission.
func TestSecureCluster(t *testing.T) {
	dir := t.TempDir()
	cert, key := certificate(t, dir)
	known := write(t, dir, "credentials", `{"credentials":[{"principal":"marathon","secret":"m"},{"principal":"ops","secret":"o"},{"principal":"guest","secret":"g"}]}`)
	acls := write(t, dir, "acls", `{
		"register_frameworks": [{"principals": {"values": ["marathon"]}, "roles": {"type": "ANY"}}, {"principals": {"type": "NONE"}, "roles": {"type": "ANY"}}],
		"view_frameworks": [{"principals": {"values": ["ops"]}, "users": {"type": "ANY"}}, {"principals": {"type": "NONE"}, "users": {"type": "ANY"}}]}`)
	files := []string{"--tls-cert", cert, "--tls-key", key, "--tls-ca", cert}
	role := func(name string, args ...string) {
		run(t, append(append([]string{name, "--ip", "127.0.0.1"}, files...), args...)...)
	}
	masterPort, agentPort, marathonPort := port(t), port(t), port(t)
	master := "127.0.0.1:" + masterPort
	role("master", "--port", masterPort, "--tls-require-client-cert", "--credentials", known, "--acls", "file://"+acls,
		"--authenticate-http-readonly", "--authenticate-http-readwrite", "--authenticate-http-frameworks")
	role("agent", "--port", agentPort, "--tls-require-client-cert", "--master", master, "--provider", "memory", "--resources", "cpus:4;mem:4096;disk:4096")
	role("marathon", "--port", marathonPort, "--master", master, "--principal", "marathon", "--secret-file", write(t, dir, "marathon", "m\n"))

	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(cert)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(text)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}}}}
	ask := func(who, secret string) (int, string) {
		req, err := http.NewRequest("GET", "https://"+master+"/frameworks", nil)
		if err != nil {
			t.Fatal(err)
		}
		if who != "" {
			req.SetBasicAuth(who, secret)
		}
		resp, err := client.Do(req)
		if err != nil {
			return 0, err.Error()
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(body)
	}
	eventually(t, "marathon", func() (string, bool) {
		_, text := ask("ops", "o")
		return text, strings.Contains(text, `"principal":"marathon"`)
	})
	for _, x := range []struct {
		who, secret string
		code        int
	}{{"", "", 401}, {"ops", "wrong", 401}, {"guest", "g", 200}} {
		if code, text := ask(x.who, x.secret); code != x.code || strings.Contains(text, "marathon") {
			t.Errorf("as %q: %d %s", x.who, code, text)
		}
	}
	if resp, err := http.Get("http://" + master + "/health"); err == nil && resp.StatusCode == http.StatusOK {
		t.Errorf("without TLS: %s", resp.Status)
	}
	stranger := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	if resp, err := stranger.Get("https://" + master + "/health"); err == nil {
		t.Errorf("without a certificate: %s", resp.Status)
	}

	eventually(t, "deployment", func() (string, bool) {
		resp, err := http.Post("http://127.0.0.1:"+marathonPort+"/v2/apps", "application/json", strings.NewReader(`{"id":"/web","cmd":"sleep infinity","cpus":0.1,"mem":32,"container":{"type":"DOCKER","docker":{"image":"web:1"}}}`))
		if err != nil {
			return err.Error(), false
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		return string(body), resp.StatusCode == http.StatusCreated
	})
	eventually(t, "task that runs", func() (string, bool) {
		_, text := ask("ops", "o")
		return text, strings.Contains(text, `"TASK_RUNNING"`)
	})
	// A task's agent is looked up at the master, as ops.
	file, err := program()
	if err != nil {
		t.Fatal(err)
	}
	to := append([]string{"--marathon", "127.0.0.1:" + marathonPort, "--master", "https://" + master, "--principal", "ops", "--secret-file", write(t, dir, "ops", "o")}, files...)
	for _, command := range [][]string{{"task", "logs", "web"}, {"task", "exec", "web"}} {
		args := append(command, to...)
		if command[1] == "exec" {
			args = append(args, "--", "true")
		}
		if out, err := exec.Command(file, args...).CombinedOutput(); err != nil {
			t.Errorf("%v: %v %s", command, err, out)
		}
	}
}
