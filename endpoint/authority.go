package endpoint

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// Authority signs the server's certificate and those that the operator makes
// for accounts. Its key stays in the state folder.
type Authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

// clockSlack is how far back certificates are dated.
const clockSlack = 5 * time.Minute

// lifetime is that of the Triton tools' certificates (node-triton: profilecommon.js).
const lifetime = 10 * 365 * 24 * time.Hour

// OpenAuthority reads ca.pem and ca-key.pem from dir, or makes them.
func OpenAuthority(dir string) (*Authority, error) {
	a, err := readAuthority(dir)
	if errors.Is(err, fs.ErrNotExist) {
		a, err = makeAuthority(dir)
	}
	if err != nil {
		return nil, fmt.Errorf("endpoint: certificate authority: %w", err)
	}
	return a, nil
}

func readAuthority(dir string) (*Authority, error) {
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "ca.pem"), filepath.Join(dir, "ca-key.pem"))
	if err != nil {
		return nil, err
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("the key in %s must be an ECDSA key", dir)
	}
	return &Authority{cert: pair.Leaf, key: key, pem: pemOf("CERTIFICATE", pair.Leaf.Raw)}, nil
}

func makeAuthority(dir string) (*Authority, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	t := template("mesopool endpoint")
	t.IsCA, t.BasicConstraintsValid, t.KeyUsage = true, true, x509.KeyUsageCertSign|x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	text, err := keyPEM(key)
	if err != nil {
		return nil, err
	}
	// The key first: a certificate without its key would be of no use.
	if err := writeFile(filepath.Join(dir, "ca-key.pem"), text); err != nil {
		return nil, err
	}
	a := &Authority{cert: cert, key: key, pem: pemOf("CERTIFICATE", der)}
	return a, writeFile(filepath.Join(dir, "ca.pem"), a.pem)
}

func template(name string) *x509.Certificate {
	serial, _ := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120)) // crypto/rand does not fail
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, NotBefore: now.Add(-clockSlack), NotAfter: now.Add(lifetime),
	}
}

func pemOf(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func keyPEM(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	return pemOf("PRIVATE KEY", der), err
}

// PEM is the authority's certificate: clients' ca.pem.
func (a *Authority) PEM() []byte { return a.pem }

// server makes a certificate for host names and addresses.
func (a *Authority) server(hosts []string) (tls.Certificate, error) {
	t := template("mesopool endpoint server")
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	for _, h := range append([]string{"localhost", "127.0.0.1", "::1"}, hosts...) {
		if ip := net.ParseIP(h); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else if h != "" {
			t.DNSNames = append(t.DNSNames, h)
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	der, err := x509.CreateCertificate(rand.Reader, t, a.cert, key.Public(), a.key)
	return tls.Certificate{Certificate: [][]byte{der, a.cert.Raw}, PrivateKey: key}, err
}

// TLS is what a listener needs. Clients are asked for a certificate and not
// refused here: what is wrong is told as an answer (sdc-docker: lib/auth.js).
func (a *Authority) TLS(hosts ...string) (*tls.Config, error) {
	cert, err := a.server(hosts)
	if err != nil {
		return nil, fmt.Errorf("endpoint: the server's certificate: %w", err)
	}
	return &tls.Config{
		Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequestClientCert, MinVersion: tls.VersionTLS12,
		NextProtos: []string{"http/1.1"}, // connections are hijacked
	}, nil
}

// Issue makes a certificate and its key for an account. It holds the account's
// UUID, so that it ends with the account.
func (a *Authority) Issue(acct *Account) (cert, key []byte, err error) {
	priv, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	t := template(acct.Login)
	t.Subject.SerialNumber = acct.UUID
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	der, err := x509.CreateCertificate(rand.Reader, t, a.cert, priv.Public(), a.key)
	if err != nil {
		return nil, nil, err
	}
	key, err = keyPEM(priv)
	return pemOf("CERTIFICATE", der), key, err
}

// WriteCerts issues a certificate and writes ca.pem, cert.pem and key.pem into
// a folder, as DOCKER_CERT_PATH expects them.
func (a *Authority) WriteCerts(acct *Account, dir string) error {
	cert, key, err := a.Issue(acct)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, f := range []struct {
		name string
		text []byte
	}{{"ca.pem", a.pem}, {"cert.pem", cert}, {"key.pem", key}} {
		if err := writeFile(filepath.Join(dir, f.name), f.text); err != nil {
			return err
		}
	}
	return nil
}
