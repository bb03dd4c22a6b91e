package credentials

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"maps"
	"strings"
	"testing"
	"time"
)

var (
	key = []byte("secret")
	at  = time.Unix(1000, 0)
)

// sign makes a token of what its parts say.
func sign(header, payload string) string {
	b64 := base64.RawURLEncoding.EncodeToString
	text := b64([]byte(header)) + "." + b64([]byte(payload))
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(text))
	return text + "." + b64(mac.Sum(nil))
}

const hs256 = `{"alg":"HS256","typ":"JWT"}`

func TestParseToken(t *testing.T) {
	good := sign(hs256, `{"sub":"ops","exp":1000,"cid":"c1","n":7,"o":{"a":1}}`)
	unsigned := strings.Join(strings.Split(good, ".")[:2], ".") + "."
	for name, x := range map[string]struct {
		token string
		want  Claims
		err   string
	}{
		"good":                 {good, Claims{"sub": "ops", "exp": "1000", "cid": "c1", "n": "7", "o": `{"a":1}`}, ""},
		"with padding":         {good + "=", Claims{"sub": "ops", "exp": "1000", "cid": "c1", "n": "7", "o": `{"a":1}`}, ""},
		"no name":              {sign(hs256, `{"cid":"c1"}`), Claims{"cid": "c1"}, ""},
		"expired":              {sign(hs256, `{"sub":"ops","exp":999}`), nil, "Token has expired: exp(999) < now(1000)"},
		"an odd expiry":        {sign(hs256, `{"sub":"ops","exp":"never"}`), nil, "'exp' field is not a number"},
		"no expiry by null":    {sign(hs256, `{"sub":"ops","exp":null}`), nil, "'exp' field is not a number"},
		"two parts":            {"a.b", nil, "Expected 3 components in token, got 2"},
		"not signed":           {unsigned, nil, "signature does not match"},
		"signed by another":    {good[:len(good)-4] + "AAAA", nil, "signature does not match"},
		"alg none":             {sign(`{"alg":"none"}`, `{"sub":"ops"}`), nil, `Token 'alg' value "none" does not match`},
		"alg RS256":            {sign(`{"alg":"RS256"}`, `{"sub":"ops"}`), nil, `Token 'alg' value "RS256" does not match`},
		"no alg":               {sign(`{}`, `{"sub":"ops"}`), nil, "Failed to locate 'alg'"},
		"an odd alg":           {sign(`{"alg":7}`, `{"sub":"ops"}`), nil, "'alg' field is not a string"},
		"an odd typ":           {sign(`{"alg":"HS256","typ":7}`, `{"sub":"ops"}`), nil, "'typ' is not a string"},
		"crit":                 {sign(`{"alg":"HS256","crit":["x"]}`, `{"sub":"ops"}`), nil, "'crit' field is unsupported"},
		"no claims":            {sign(hs256, `{}`), nil, "JWT claims missing"},
		"a payload of null":    {sign(hs256, `null`), nil, "Failed to decode token payload"},
		"a header not base 64": {"!." + good, nil, "Expected 3 components"},
		"not base 64":          {"!.e30.e30", nil, "Failed to decode token header: Failed to base64url-decode"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseToken(x.token, key, at)
			if x.err == "" && (err != nil || !maps.Equal(got, x.want)) {
				t.Errorf("%v, %v, want %v", got, err, x.want)
			}
			if x.err != "" && (err == nil || !strings.Contains(err.Error(), x.err)) {
				t.Errorf("%v, want %q", err, x.err)
			}
		})
	}
	if _, err := ParseToken(good, nil, at); err == nil {
		t.Error("without a key a token is taken")
	}
}

func FuzzParseToken(f *testing.F) {
	f.Add(sign(hs256, `{"sub":"ops"}`))
	f.Add(sign(`{"alg":"none"}`, `{"sub":"ops"}`))
	f.Add("..")
	f.Fuzz(func(t *testing.T, token string) {
		if claims, err := ParseToken(token, []byte("a key that nobody signs with"), at); err == nil {
			t.Errorf("a forged token is taken: %v", claims)
		}
	})
}
