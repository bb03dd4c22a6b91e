package server

import (
	"context"
	"encoding/base64"
	"net/http"
	"strings"
	"time"

	"github.com/mesopool/mesopool/master/authz"
	"github.com/mesopool/mesopool/mesos/credentials"
)

// Auth says who must prove who they are, and who may do what. The zero value
// asks nobody and allows everything.
type Auth struct {
	Known     credentials.Known // for HTTP basic and CRAM-MD5
	TokenKey  []byte            // for bearer tokens; empty: none are taken
	ReadOnly  bool              // --authenticate_http_readonly
	ReadWrite bool              // --authenticate_http_readwrite
	Framework bool              // --authenticate_http_frameworks
	Drivers   bool              // --authenticate_frameworks: those that speak libprocess
	Agents    bool              // --authenticate_agents
	ACLs      *authz.ACLs       // nil: everybody may do everything
}

// realm is a part of the API that one proof is good for.
type realm string

// Mesos' realms (master/constants.hpp, master/http.hpp). Paths without one are
// open to all.
const (
	realmNone      realm = ""
	realmReadOnly  realm = "mesos-master-readonly"
	realmReadWrite realm = "mesos-master-readwrite"
	realmFramework realm = "mesos-master-scheduler"
)

// realmOf is the realm of a path (master.cpp, initialize). Pages for people only
// show what is there.
func realmOf(path string) realm {
	switch path {
	case "/health", "/redirect", "/version":
		return realmNone
	case "/api/v1/scheduler":
		return realmFramework
	case "/api/v1", "/create-volumes", "/destroy-volumes", "/reserve", "/unreserve", "/teardown", "/maintenance/schedule",
		"/machine/down", "/machine/up", "/weights", "/quota":
		return realmReadWrite
	}
	if strings.HasPrefix(path, "/quota/") {
		return realmReadWrite
	}
	return realmReadOnly
}

func (a *Auth) demands(r realm) bool {
	return r == realmReadOnly && a.ReadOnly || r == realmReadWrite && a.ReadWrite || r == realmFramework && a.Framework
}

// challenge is why somebody is not let in, in the words of one scheme.
type challenge struct{ header, scheme string }

// authenticate finds out who asks. Where nobody has to prove anything, everybody
// is anybody, whatever they bring along. The challenges say what would be taken.
func (a *Auth) authenticate(r *http.Request, in realm) (who authz.Subject, refused []challenge) {
	if !a.demands(in) {
		return who, nil
	}
	scheme, proof, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if name, ok := a.basic(scheme, proof); ok {
		return authz.Subject{Name: name}, nil
	}
	refused = append(refused, challenge{`Basic realm="` + string(in) + `"`, "basic"})
	if len(a.TokenKey) == 0 {
		return who, refused
	}
	claims, problem := a.bearer(scheme, proof, r.Header.Get("Authorization") != "")
	if claims != nil {
		return authz.Subject{Name: claims.Principal(), Nameless: claims.Principal() == ""}, nil
	}
	header := `Bearer realm="` + string(in) + `"`
	if problem != "" {
		header += `, error="invalid_token", error_description="` + strings.ReplaceAll(problem, `"`, `'`) + `"`
	}
	return who, append(refused, challenge{header, "jwt"})
}

func (a *Auth) basic(scheme, proof string) (principal string, ok bool) {
	if scheme != "Basic" {
		return "", false
	}
	text, err := base64.StdEncoding.DecodeString(proof)
	if err != nil {
		return "", false
	}
	principal, secret, _ := strings.Cut(string(text), ":")
	return principal, a.Known.Check(principal, secret)
}

// bearer says what is wrong with a token, nothing of a request that has none
// (RFC 6750, section 3.1).
func (a *Auth) bearer(scheme, proof string, tried bool) (credentials.Claims, string) {
	switch {
	case !tried:
		return nil, ""
	case proof == "" || strings.Contains(proof, " "):
		return nil, "Malformed 'Authorization' header"
	case scheme != "Bearer":
		return nil, "Scheme '" + strings.Map(printable, scheme) + "' unsupported"
	}
	claims, err := credentials.ParseToken(proof, a.TokenKey, time.Now())
	if err != nil {
		return nil, "Invalid JWT: " + strings.Map(printable, err.Error())
	}
	return claims, ""
}

// printable keeps out of a header what does not belong there.
func printable(r rune) rune {
	if r < ' ' || r > '~' {
		return '?'
	}
	return r
}

// answerUnauthorized is the answer of Mesos' authenticators, one or several
// (common/http.cpp; authentication/http/combined_authenticator.cpp).
func answerUnauthorized(w http.ResponseWriter, refused []challenge) {
	const text = "401 Unauthorized."
	headers, bodies := make([]string, len(refused)), make([]string, len(refused))
	for i, c := range refused {
		headers[i], bodies[i] = c.header, `"`+c.scheme+"\" authenticator returned:\n"+text
	}
	body := strings.Join(bodies, "\n\n")
	if len(refused) == 1 {
		body = text
	}
	w.Header().Set("WWW-Authenticate", strings.Join(headers, ","))
	answerError(w, failf(http.StatusUnauthorized, "%s", body))
}

type subjectKey struct{}

// guard lets those in who have proven who they are, and remembers it.
func (s *Server) guard(in realm, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who, refused := s.cfg.Auth.authenticate(r, in)
		switch {
		case refused == nil && who.Nameless && in != realmReadOnly:
			answerError(w, failf(http.StatusForbidden, nameless))
		case refused == nil:
			if who != (authz.Subject{}) {
				r = r.WithContext(context.WithValue(r.Context(), subjectKey{}, who))
			}
			h.ServeHTTP(w, r)
		case r.Method == http.MethodOptions: // browsers ask first without a proof
			withCORS(nil)(w, r)
		default:
			answerUnauthorized(w, refused)
		}
	})
}

// subject is who a request is from.
func subject(ctx context.Context) authz.Subject {
	who, _ := ctx.Value(subjectKey{}).(authz.Subject)
	return who
}

// allowed says that the one who asks may do something with all of the objects.
func (s *Server) allowed(ctx context.Context, action authz.Action, objects ...string) error {
	if s.cfg.Auth.ACLs.Allows(subject(ctx), action, objects...) {
		return nil
	}
	return errForbidden()
}

func errForbidden() error { return failf(http.StatusForbidden, "403 Forbidden.") }

// nameless is what those are told whose proof has no name to do something in
// (master/http.cpp, scheduler and api).
const nameless = "The request's authenticated principal contains claims, but no value string. The master currently requires that principals have a value"
