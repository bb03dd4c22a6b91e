package endpoint

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// forge makes a certificate as change wants it, signed by signer, or by its own
// key where that is nil.
func forge(t *testing.T, key crypto.Signer, signer crypto.Signer, change func(*x509.Certificate), issuer string) tls.Certificate {
	t.Helper()
	c := template("a")
	change(c)
	parent := &x509.Certificate{Subject: pkix.Name{CommonName: issuer}, SerialNumber: c.SerialNumber}
	if signer == nil {
		signer, parent = key, c
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func addKey(t *testing.T, c *Cloud, login string, pub crypto.PublicKey) string {
	t.Helper()
	p, err := ssh.NewPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	k, err := ParseKey("", string(ssh.MarshalAuthorizedKey(p)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Accounts().Change(login, func(a *Account) error { a.Keys = append(a.Keys, k); return nil }); err != nil {
		t.Fatal(err)
	}
	return k.Fingerprint
}

func newECDSA() *ecdsa.PrivateKey {
	k, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	return k
}

// TestRule04Certificates: who a certificate is, and what is told of those that
// are nobody's.
func TestRule04Certificates(t *testing.T) {
	r := plainRig(t)
	a := r.tenant("a")
	r.tenant("b")
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	accountKey, stranger := newECDSA(), newECDSA()
	rsaPrint, ecPrint := addKey(t, r.cloud, "a", rsaKey.Public()), addKey(t, r.cloud, "a", accountKey.Public())
	expired := func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
	}
	docker := func(c *x509.Certificate) {
		c.ExtKeyUsage, c.UnknownExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, []asn1.ObjectIdentifier{dockerPurpose}
	}
	named := func(name string) func(*x509.Certificate) {
		return func(c *x509.Certificate) { docker(c); c.Subject.CommonName = name }
	}
	ca := r.cloud.authority
	byCA := func(change func(*x509.Certificate)) tls.Certificate {
		return forge(t, newECDSA(), ca.key, func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
			c.Subject.SerialNumber = a.acct.UUID
			change(c)
		}, ca.cert.Subject.CommonName)
	}
	nop := func(*x509.Certificate) {}
	const unauthorized = "Unauthorized ("
	tests := []struct {
		name   string
		cert   tls.Certificate
		status int
		text   string
	}{
		{"self-signed by an account key", forge(t, rsaKey, nil, nop, ""), 200, "{"},
		{"self-signed and expired", forge(t, rsaKey, nil, expired, ""), 200, "{"},
		{"self-signed by a stranger", forge(t, stranger, nil, nop, ""), 401, unauthorized},
		{"self-signed for another account", forge(t, rsaKey, nil, named("b"), ""), 401, unauthorized},
		{"an account key, signed by a stranger", forge(t, rsaKey, stranger, nop, "x"), 401, unauthorized},
		{"signed by an account key", forge(t, newECDSA(), accountKey, docker, ecPrint), 200, "{"},
		{"signed by an RSA account key", forge(t, newECDSA(), rsaKey, docker, rsaPrint), 200, "{"},
		{"signed and expired", forge(t, newECDSA(), accountKey, func(c *x509.Certificate) { docker(c); expired(c) }, ecPrint), 401, "Client certificate expired ("},
		{"signed without the purpose", forge(t, newECDSA(), accountKey, nop, ecPrint), 401, unauthorized},
		{"signed for another service", forge(t, newECDSA(), accountKey, func(c *x509.Certificate) {
			docker(c)
			c.UnknownExtKeyUsage = append(c.UnknownExtKeyUsage, cmonPurpose)
		}, ecPrint), 401, unauthorized},
		{"signed by another key than it says", forge(t, newECDSA(), stranger, docker, ecPrint), 401, unauthorized},
		{"signed for another account", forge(t, newECDSA(), accountKey, named("b"), ecPrint), 401, unauthorized},
		{"nobody", forge(t, newECDSA(), accountKey, named("nobody"), ecPrint), 401, unauthorized},
		{"a path", forge(t, newECDSA(), accountKey, named("../a"), ecPrint), 401, unauthorized},
		{"issued", byCA(nop), 200, "{"},
		{"issued and expired", byCA(expired), 401, "Client certificate expired ("},
		{"issued for another account", byCA(named("b")), 401, unauthorized},
		{"the server's own", func() tls.Certificate { c, _ := ca.server(nil); return c }(), 401, unauthorized},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := send(r.with(tt.cert), "GET", r.url+"/info", nil)
			if got.err != nil || got.status != tt.status || !strings.HasPrefix(got.text, tt.text) {
				t.Errorf("%v; want %d %s", got, tt.status, tt.text)
			}
		})
	}
	if got := send(r.with(), "GET", r.url+"/info", nil); got.status != 401 {
		t.Errorf("no certificate: %v", got)
	}
	if _, err := r.cloud.Accounts().Change("a", func(a *Account) error { a.Disabled = true; return nil }); err != nil {
		t.Fatal(err)
	}
	a.want(403, "Forbidden", "GET", "/info", nil)
}

// TestAnAccountMadeAgainIsAnother: old certificates and containers are not its.
func TestAnAccountMadeAgainIsAnother(t *testing.T) {
	r := plainRig(t)
	old := r.newTenant("a")
	old.create("x", body("run", nil))
	if err := r.cloud.Accounts().Remove("a"); err != nil {
		t.Fatal(err)
	}
	old.want(401, "Unauthorized (", "GET", "/info", nil)
	again := r.tenant("a")
	old.want(401, "Unauthorized (", "GET", "/info", nil)
	if got := again.list("all=1"); len(got) != 0 {
		t.Error(got)
	}
	again.want(404, "(ResourceNotFound) No such image", "POST", "/containers/create", body("run", nil))
}

func TestParseKey(t *testing.T) {
	_, private, _ := ed25519.GenerateKey(rand.Reader)
	p, _ := ssh.NewPublicKey(private.Public())
	line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(p)))
	if k, err := ParseKey("", line+" me@home"); err != nil || k.Name != "me@home" {
		t.Error(k, err)
	}
	for _, bad := range []string{"", "ssh-rsa x", line + "\n" + line} {
		if _, err := ParseKey("", bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}
