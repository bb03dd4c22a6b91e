// Package crammd5 is Mesos' authentication over libprocess: both sides of
// CRAM-MD5 (src/authentication/cram_md5). Neither side ever sends the secret.
//
// An agent or a driver calls Authenticate before it registers. A master keeps a
// Session for each AuthenticateMessage:
//
//	s := crammd5.NewSession(secrets)
//	send(s.Mechanisms())
//	answer := s.Receive(message) // until s.Done()
//	principal, ok := s.Principal()
package crammd5

import (
	"crypto/hmac"
	"crypto/md5"
	"encoding/hex"
	"encoding/json"
	"errors"
	"strings"
)

// mechanism is the only one that Mesos has.
const mechanism = "CRAM-MD5"

// Credential is who somebody is, and the secret to prove it.
type Credential struct {
	Principal string `json:"principal"`
	Secret    string `json:"secret"`
}

// Parse reads a credential as Mesos' --credential files have it: JSON, or the
// principal and the secret with white space between.
func Parse(text string) (Credential, error) {
	var c Credential
	if strings.HasPrefix(strings.TrimSpace(text), "{") {
		if err := json.Unmarshal([]byte(text), &c); err != nil {
			return c, errors.New(`crammd5: the credential is no JSON of the form {"principal": "…", "secret": "…"}`)
		}
	} else if words := strings.Fields(text); len(words) == 2 {
		c = Credential{words[0], words[1]}
	}
	if c.Principal == "" || c.Secret == "" {
		return c, errors.New(`crammd5: a credential is a principal and a secret: two words, or JSON of the form {"principal": "…", "secret": "…"}`)
	}
	return c, nil
}

// answer is what proves to know the secret without telling it (RFC 2195).
func (c Credential) answer(challenge []byte) []byte {
	return []byte(c.Principal + " " + digest(c.Secret, challenge))
}

func digest(secret string, challenge []byte) string {
	h := hmac.New(md5.New, []byte(secret))
	h.Write(challenge)
	return hex.EncodeToString(h.Sum(nil))
}
