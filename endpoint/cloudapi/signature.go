package cloudapi

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	_ "crypto/sha1" // rsa-sha1: what triton-go's signer makes
	_ "crypto/sha256"
	_ "crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// signature is an Authorization header of the scheme Signature
// (draft-cavage-http-signatures; sdc-cloudapi: docs/index.md).
type signature struct {
	account, key string // of keyId="/account/keys/key"
	algorithm    string
	headers      []string
	value        []byte
}

// maxHeader bounds what is read of an Authorization header.
const maxHeader = 8 << 10

var errSyntax = errors.New("the Authorization header is no Signature with keyId, algorithm and signature")

// parseSignature reads the header.
func parseSignature(header string) (*signature, error) {
	rest, ok := strings.CutPrefix(header, "Signature ")
	if !ok || len(header) > maxHeader {
		return nil, errSyntax
	}
	fields, err := parameters(rest)
	if err != nil {
		return nil, err
	}
	s := &signature{algorithm: strings.ToLower(fields["algorithm"]), headers: []string{"date"}}
	if h, there := fields["headers"]; there {
		s.headers = strings.Fields(strings.ToLower(h))
	}
	parts := strings.Split(fields["keyId"], "/")
	if len(parts) != 4 || parts[0] != "" || parts[2] != "keys" || parts[1] == "" || parts[3] == "" {
		return nil, errors.New("keyId must be /account/keys/fingerprint; users of an account are not supported")
	}
	s.account, s.key = parts[1], parts[3]
	s.value, err = base64.StdEncoding.DecodeString(fields["signature"])
	if err != nil || len(s.value) == 0 || s.algorithm == "" {
		return nil, errSyntax
	}
	return s, nil
}

// parameters reads name="value" pairs; a name that comes twice is an error.
func parameters(text string) (map[string]string, error) {
	out := map[string]string{}
	for text = strings.TrimSpace(text); text != ""; {
		name, rest, ok := strings.Cut(text, `="`)
		value, rest, closed := strings.Cut(rest, `"`)
		name = strings.TrimSpace(name)
		if _, twice := out[name]; !ok || !closed || name == "" || twice {
			return nil, errSyntax
		}
		out[name] = value
		text = strings.TrimSpace(rest)
		if text, ok = strings.CutPrefix(text, ","); !ok && text != "" {
			return nil, errSyntax
		}
		text = strings.TrimSpace(text)
	}
	return out, nil
}

// signed is the text that was signed: a line for each header.
func (s *signature) signed(r *http.Request) ([]byte, error) {
	var lines []string
	for _, h := range s.headers {
		value := ""
		switch h {
		case "(request-target)":
			value = strings.ToLower(r.Method) + " " + r.URL.RequestURI()
		case "host":
			value = r.Host
		default:
			all := r.Header.Values(h)
			if len(all) == 0 {
				return nil, fmt.Errorf("the header %s is signed and not there", h)
			}
			value = strings.Join(all, ", ")
		}
		lines = append(lines, h+": "+value)
	}
	return []byte(strings.Join(lines, "\n")), nil
}

// skew is how wrong a client's clock may be (sdc-cloudapi: docs/index.md).
const skew = 300 * time.Second

// fresh checks that the date is signed and about now.
func (s *signature) fresh(r *http.Request, now time.Time) error {
	if !slices.Contains(s.headers, "date") {
		return errors.New("the date must be signed")
	}
	at, err := http.ParseTime(r.Header.Get("Date"))
	if err != nil { // triton-go writes UTC where HTTP has GMT
		at, err = time.Parse(time.RFC1123, r.Header.Get("Date"))
	}
	if err != nil {
		return errors.New("the Date header is no HTTP date")
	}
	if d := now.Sub(at); d > skew || d < -skew {
		return errors.New("the clock is wrong: the Date header differs by more than 300 seconds")
	}
	return nil
}

// hashes of the algorithms' names, as in rsa-sha256.
var hashes = map[string]crypto.Hash{"sha1": crypto.SHA1, "sha256": crypto.SHA256, "sha384": crypto.SHA384, "sha512": crypto.SHA512}

// verify checks the signature with an account's key.
func (s *signature) verify(r *http.Request, key ssh.PublicKey) error {
	text, err := s.signed(r)
	if err != nil {
		return err
	}
	pub, ok := key.(ssh.CryptoPublicKey)
	if !ok {
		return errors.New("this kind of key cannot sign requests")
	}
	kind, name, _ := strings.Cut(s.algorithm, "-")
	hash, known := hashes[name]
	switch k := pub.CryptoPublicKey().(type) {
	case *rsa.PublicKey:
		ok = kind == "rsa" && known && rsa.VerifyPKCS1v15(k, hash, digest(hash, text), s.value) == nil
	case *ecdsa.PublicKey:
		ok = kind == "ecdsa" && known && hash != crypto.SHA1 && ecdsa.VerifyASN1(k, digest(hash, text), s.value)
	case ed25519.PublicKey:
		ok = kind == "ed25519" && ed25519.Verify(k, text, s.value)
	default:
		ok = false
	}
	if !ok {
		return errors.New("the signature does not fit the key")
	}
	return nil
}

func digest(hash crypto.Hash, text []byte) []byte {
	h := hash.New()
	h.Write(text)
	return h.Sum(nil)
}
