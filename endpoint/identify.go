package endpoint

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"net/http"
	"slices"
	"time"

	"golang.org/x/crypto/ssh"
)

// dockerPurpose marks certificates for Docker only (Joyent's OID registry,
// root.md: 1.3.6.1.4.1.38678.1.4.1).
var dockerPurpose = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 38678, 1, 4, 1}

// cmonPurpose marks certificates for another service.
var cmonPurpose = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 38678, 1, 4, 2}

var (
	errUnauthorized = &Error{Status: http.StatusUnauthorized, Message: "Unauthorized"}
	errExpired      = &Error{Status: http.StatusUnauthorized, Message: "Client certificate expired"}
	errForbidden    = &Error{Status: http.StatusForbidden, Message: "Forbidden: the account is disabled"}
)

// Identify finds the account of a client certificate, or returns an *Error. All
// that is wrong with a certificate has the same answer.
func (c *Cloud) Identify(cert *x509.Certificate) (*Account, error) {
	if cert == nil {
		return nil, errUnauthorized
	}
	acct, err := c.accounts.Get(cert.Subject.CommonName)
	if err != nil {
		return nil, errUnauthorized
	}
	if err := c.prove(acct, cert, time.Now()); err != nil {
		return nil, err
	}
	if acct.Disabled {
		return nil, errForbidden
	}
	return acct, nil
}

// prove accepts three kinds: issued by the endpoint's own authority for this
// very account; self-signed by an account key, as sdc-docker-setup.sh makes
// them, whose end is not looked at; and signed by an account key that the
// issuer names, as "triton profile docker-setup" makes them, whose end is
// (sdc-docker: lib/auth.js).
func (c *Cloud) prove(acct *Account, cert *x509.Certificate, now time.Time) error {
	dated := false
	switch {
	case cert.CheckSignatureFrom(c.authority.cert) == nil:
		if cert.Subject.SerialNumber != acct.UUID || !slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageClientAuth) {
			return errUnauthorized
		}
		dated = true
	case acct.selfSigned(cert):
	case acct.signed(cert):
		dated = true
	default:
		return errUnauthorized
	}
	if dated && (now.After(cert.NotAfter) || now.Before(cert.NotBefore)) {
		return errExpired
	}
	return nil
}

// selfSigned says whether the certificate's key is an account key.
func (a *Account) selfSigned(cert *x509.Certificate) bool {
	pub, err := ssh.NewPublicKey(cert.PublicKey)
	if err != nil {
		return false
	}
	known, there := a.FindKey(ssh.FingerprintLegacyMD5(pub))
	return there && string(known.Marshal()) == string(pub.Marshal()) && signedBy(cert, cert.PublicKey)
}

// signed says whether an account key that the issuer names signed it.
func (a *Account) signed(cert *x509.Certificate) bool {
	pub, there := a.FindKey(cert.Issuer.CommonName)
	if !there || cert.Issuer.CommonName != ssh.FingerprintLegacyMD5(pub) {
		return false
	}
	isDocker := slices.ContainsFunc(cert.UnknownExtKeyUsage, dockerPurpose.Equal)
	other := slices.ContainsFunc(cert.UnknownExtKeyUsage, cmonPurpose.Equal)
	if !isDocker || other || !slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageClientAuth) {
		return false
	}
	crypto, ok := pub.(ssh.CryptoPublicKey)
	return ok && signedBy(cert, crypto.CryptoPublicKey())
}

// signedBy checks a signature without the rules for authorities: account keys
// are none. ED25519 account keys cannot sign these (node-triton).
func signedBy(cert *x509.Certificate, pub any) bool {
	switch pub.(type) {
	case *rsa.PublicKey, *ecdsa.PublicKey, ed25519.PublicKey:
	default:
		return false
	}
	parent := &x509.Certificate{PublicKey: pub, PublicKeyAlgorithm: algorithmOf(pub)}
	return parent.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature) == nil
}

func algorithmOf(pub any) x509.PublicKeyAlgorithm {
	switch pub.(type) {
	case *rsa.PublicKey:
		return x509.RSA
	case *ecdsa.PublicKey:
		return x509.ECDSA
	}
	return x509.Ed25519
}
