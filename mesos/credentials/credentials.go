// Package credentials is who may prove to be whom: the principals and secrets of
// a master's --credentials file. It knows nothing of how they are proven; HTTP
// basic and CRAM-MD5 both ask it.
//
//	known, err := credentials.Parse(text)
//	secret, ok := known.Secret(principal) // for crammd5.NewSession
//	ok := known.Check(principal, secret)  // for HTTP basic
package credentials

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// Known holds the secret of each principal. The zero value knows nobody. It
// does not change after Parse, so all may use it at the same time.
type Known struct{ secrets map[string]string }

// Parse reads a file as Mesos' --credentials names it: JSON of the form
// {"credentials": [{"principal": "…", "secret": "…"}]} (credentials.hpp:read),
// or, as before Mesos 1.0, a principal and a secret with white space between on
// each line. A file with nothing in it knows nobody.
func Parse(text []byte) (Known, error) {
	known := Known{secrets: map[string]string{}}
	if trimmed := bytes.TrimSpace(text); len(trimmed) > 0 && trimmed[0] == '{' {
		return known, known.parseJSON(trimmed)
	}
	n := 0
	for line := range strings.SplitSeq(string(text), "\n") {
		n++
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		if len(words) != 2 {
			return Known{}, fmt.Errorf("credentials: line %d has %d words; it must be a principal and a secret", n, len(words))
		}
		if err := known.add(words[0], words[1]); err != nil {
			return Known{}, err
		}
	}
	return known, nil
}

func (k Known) parseJSON(text []byte) error {
	var file struct {
		Credentials []struct {
			Principal string `json:"principal"`
			Secret    string `json:"secret"`
		} `json:"credentials"`
	}
	if err := json.Unmarshal(text, &file); err != nil {
		// The decoder's own words may hold a secret.
		return errors.New(`credentials: no JSON of the form {"credentials": [{"principal": "…", "secret": "…"}]}`)
	}
	for _, c := range file.Credentials {
		if err := k.add(c.Principal, c.Secret); err != nil {
			return err
		}
	}
	return nil
}

func (k Known) add(principal, secret string) error {
	switch _, again := k.secrets[principal]; {
	case principal == "":
		return errors.New("credentials: one has no principal; each needs a principal and a secret")
	case again:
		return fmt.Errorf("credentials: %q is there twice; a principal has one secret", principal)
	}
	k.secrets[principal] = secret
	return nil
}

// Len returns how many principals are known.
func (k Known) Len() int { return len(k.secrets) }

// Secret returns what a principal proves itself with. An empty secret is none:
// that principal cannot prove anything.
func (k Known) Secret(principal string) (string, bool) {
	s := k.secrets[principal]
	return s, s != ""
}

// Check says whether the secret is the principal's. It takes as long for those
// that are not known.
func (k Known) Check(principal, secret string) bool {
	want, known := k.Secret(principal)
	a, b := sha256.Sum256([]byte(want)), sha256.Sum256([]byte(secret))
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1 && known
}
