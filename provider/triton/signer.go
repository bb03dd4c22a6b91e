package triton

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/asn1"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// Signer signs requests to CloudAPI with an SSH key of the account. It is a
// triton-go authentication.Signer; triton-go's own know RSA with SHA-1 only.
type Signer struct {
	account string
	signer  ssh.Signer
}

// KeyFromFile reads a private key: RSA, ECDSA or ed25519, in the format of
// OpenSSH, PKCS#1 or PKCS#8, without a passphrase.
func KeyFromFile(account, path string) (Signer, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return Signer{}, fmt.Errorf("triton: the SSH key: %w", err)
	}
	key, err := ssh.ParsePrivateKey(text)
	var locked *ssh.PassphraseMissingError
	if errors.As(err, &locked) {
		return Signer{}, fmt.Errorf("triton: the SSH key %s has a passphrase: add it to an ssh-agent and name it by its fingerprint", path)
	}
	if err != nil {
		return Signer{}, fmt.Errorf("triton: the SSH key %s: %w", path, err)
	}
	return Signer{account, key}, nil
}

// KeyFromAgent finds a key by its MD5 or SHA256 fingerprint in the ssh-agent
// whose socket is given (SSH_AUTH_SOCK).
func KeyFromAgent(account, fingerprint, socket string) (Signer, error) {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return Signer{}, fmt.Errorf("triton: the ssh-agent does not answer: %w", err)
	}
	signers, err := agent.NewClient(conn).Signers()
	if err != nil {
		conn.Close()
		return Signer{}, fmt.Errorf("triton: the ssh-agent: %w", err)
	}
	for _, s := range signers {
		if isKey(s.PublicKey(), fingerprint) {
			return Signer{account, s}, nil // it needs the connection as long as it lives
		}
	}
	conn.Close()
	return Signer{}, fmt.Errorf("triton: the ssh-agent has no key with the fingerprint %s: ssh-add it", fingerprint)
}

func isKey(k ssh.PublicKey, fingerprint string) bool {
	return strings.TrimPrefix(fingerprint, "MD5:") == ssh.FingerprintLegacyMD5(k) || fingerprint == ssh.FingerprintSHA256(k)
}

// zero says whether there is no key.
func (s Signer) zero() bool { return s.signer == nil }

// KeyFingerprint is the key's MD5 fingerprint, which CloudAPI knows it by.
func (s Signer) KeyFingerprint() string { return ssh.FingerprintLegacyMD5(s.signer.PublicKey()) }

// DefaultAlgorithm is the algorithm's name in a signature.
func (s Signer) DefaultAlgorithm() string {
	algorithm, _ := s.algorithms()
	return algorithm
}

// algorithms are the names of the key's algorithm: in HTTP and in SSH.
func (s Signer) algorithms() (http, ssh_ string) {
	switch kind := s.signer.PublicKey().Type(); kind {
	case ssh.KeyAlgoRSA:
		return "rsa-sha256", ssh.KeyAlgoRSASHA256
	case ssh.KeyAlgoECDSA384:
		return "ecdsa-sha384", kind
	case ssh.KeyAlgoECDSA521:
		return "ecdsa-sha512", kind
	case ssh.KeyAlgoED25519:
		return "ed25519-sha512", kind
	default:
		return "ecdsa-sha256", kind
	}
}

// Sign is the Authorization header over a date; Manta is not spoken.
func (s Signer) Sign(date string, _ bool) (string, error) {
	signature, algorithm, err := s.SignRaw("date: " + date)
	return fmt.Sprintf(`Signature keyId="/%s/keys/%s",algorithm="%s",headers="date",signature="%s"`,
		s.account, s.KeyFingerprint(), algorithm, signature), err
}

// SignRaw signs a text; the signature is in base64.
func (s Signer) SignRaw(text string) (signature, algorithm string, err error) {
	algorithm, kind := s.algorithms()
	var made *ssh.Signature
	if as, ok := s.signer.(ssh.AlgorithmSigner); ok {
		made, err = as.SignWithAlgorithm(rand.Reader, []byte(text), kind)
	} else {
		made, err = s.signer.Sign(rand.Reader, []byte(text))
	}
	if err != nil {
		return "", "", fmt.Errorf("triton: sign a request: %w", err)
	}
	raw, err := plain(s.signer.PublicKey(), made)
	return base64.StdEncoding.EncodeToString(raw), algorithm, err
}

// plain is the signature as HTTP wants it: that of an ECDSA key in SSH is two
// numbers (RFC 5656, 3.1.2), elsewhere a DER sequence of them.
func plain(k ssh.PublicKey, s *ssh.Signature) ([]byte, error) {
	pub, ok := k.(ssh.CryptoPublicKey)
	if !ok {
		return nil, fmt.Errorf("triton: keys of type %s cannot sign requests", k.Type())
	}
	switch pub.CryptoPublicKey().(type) {
	case *ecdsa.PublicKey:
		var rs struct{ R, S *big.Int }
		if err := ssh.Unmarshal(s.Blob, &rs); err != nil {
			return nil, err
		}
		return asn1.Marshal(rs)
	case ed25519.PublicKey:
		return s.Blob, nil
	default:
		return s.Blob, nil // RSA
	}
}
