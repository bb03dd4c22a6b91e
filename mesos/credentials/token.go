package credentials

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// Claims is what a token says, as text: strings as they are, all else as JSON.
type Claims map[string]string

// Principal is the claim that names its bearer (RFC 7519, sub); "" when none
// does.
func (c Claims) Principal() string { return c["sub"] }

// ParseToken checks a JSON web token that is signed with HS256 and has not
// expired, and returns its claims. No other algorithm is taken, none least of
// all (libprocess, jwt.cpp:JWT::parse).
func ParseToken(token string, key []byte, now time.Time) (Claims, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil, refuse("Expected 3 components in token, got %d", len(parts))
	}
	if err := checkHeader(parts[0]); err != nil {
		return nil, err
	}
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(parts[0] + "." + parts[1]))
	signature, err := decodePart(parts[2])
	if err != nil || len(key) == 0 || !hmac.Equal(mac.Sum(nil), signature) {
		return nil, errSignature
	}
	return readClaims(parts[1], now)
}

// refusal is an error whose words are those of Mesos.
type refusal string

func (r refusal) Error() string { return string(r) }

const errSignature = refusal("Token signature does not match")

func refuse(format string, args ...any) error { return refusal(fmt.Sprintf(format, args...)) }

// decodePart takes base64 for URLs, with its padding or without.
func decodePart(text string) ([]byte, error) {
	return base64.RawURLEncoding.DecodeString(strings.TrimRight(text, "="))
}

func decodeObject(what, text string) (map[string]json.RawMessage, error) {
	raw, err := decodePart(text)
	if err != nil {
		return nil, refuse("Failed to decode token %s: Failed to base64url-decode", what)
	}
	var out map[string]json.RawMessage
	if json.Unmarshal(raw, &out) != nil || out == nil {
		return nil, refuse("Failed to decode token %s: Failed to parse into JSON", what)
	}
	return out, nil
}

func checkHeader(text string) error {
	header, err := decodeObject("header", text)
	if err != nil {
		return err
	}
	var alg, typ string
	switch {
	case header["typ"] != nil && json.Unmarshal(header["typ"], &typ) != nil:
		return refuse("Token 'typ' is not a string")
	case header["alg"] == nil:
		return refuse("Failed to locate 'alg' in token JSON header")
	case json.Unmarshal(header["alg"], &alg) != nil:
		return refuse("Token 'alg' field is not a string")
	case alg != "HS256":
		return refuse("Token 'alg' value %q does not match, expected \"HS256\"", alg)
	case header["crit"] != nil:
		return refuse("Token 'crit' field is unsupported")
	}
	return nil
}

func readClaims(text string, now time.Time) (Claims, error) {
	payload, err := decodeObject("payload", text)
	if err != nil {
		return nil, err
	}
	if exp, ok := payload["exp"]; ok {
		var at float64
		if json.Unmarshal(exp, &at) != nil || string(exp) == "null" {
			return nil, refuse("JSON payload 'exp' field is not a number")
		}
		if at < float64(now.Unix()) {
			return nil, refuse("Token has expired: exp(%.0f) < now(%d)", at, now.Unix())
		}
	}
	if len(payload) == 0 {
		return nil, refuse("JWT claims missing")
	}
	claims := Claims{}
	for name, value := range payload {
		var s string
		if value[0] != '"' || json.Unmarshal(value, &s) != nil {
			s = string(value)
		}
		claims[name] = s
	}
	return claims, nil
}
