package cli

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"github.com/spf13/viper"

	"github.com/mesopool/mesopool/master/authz"
	"github.com/mesopool/mesopool/master/server"
	"github.com/mesopool/mesopool/mesos/credentials"
)

// tlsClientFlags are common to all that connect to a master.
func tlsClientFlags(f *pflag.FlagSet) {
	f.String("tls-cert", "", "the certificate to show to the others (PEM); default: no TLS, or none to show")
	f.String("tls-key", "", "the certificate's key")
	f.String("tls-ca", "", "who signs the certificates of the others; default: the system's authorities")
}

// tlsFlags are common to all that listen for the messages of masters and agents.
func tlsFlags(f *pflag.FlagSet) {
	tlsClientFlags(f)
	f.Bool("tls-require-client-cert", false, "take messages and requests only from those with a certificate by --tls-ca")
}

func tlsFrom(v *viper.Viper) (*peerTLS, error) {
	return readTLS(v.GetString("tls-cert"), v.GetString("tls-key"), v.GetString("tls-ca"), v.GetBool("tls-require-client-cert"))
}

// tlsClient is how to connect to a master over TLS; nil: in plain text.
func tlsClient(v *viper.Viper) (*tls.Config, error) {
	cert, key, ca := v.GetString("tls-cert"), v.GetString("tls-key"), v.GetString("tls-ca")
	if cert != "" || key != "" {
		t, err := readTLS(cert, key, ca, false)
		if err != nil {
			return nil, err
		}
		return t.client, nil
	}
	if ca == "" {
		return nil, nil
	}
	pool, err := authorities(ca)
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool}, err
}

// dialer connects over TLS; nil for a nil config.
func dialer(config *tls.Config) func(ctx context.Context, network, addr string) (net.Conn, error) {
	if config == nil {
		return nil
	}
	return (&tls.Dialer{NetDialer: &net.Dialer{Timeout: 10 * time.Second}, Config: config}).DialContext
}

// securityFlags are those of a master; the names are Mesos'.
func securityFlags(f *pflag.FlagSet) {
	f.String("credentials", "", "a file with the principals and secrets of those who prove who they are, as Mesos has them")
	f.Bool("authenticate-agents", false, "only agents that prove who they are with one of --credentials may register (CRAM-MD5)")
	f.Bool("authenticate-frameworks", false, "only scheduler drivers that prove who they are with one of --credentials may subscribe (CRAM-MD5)")
	f.Bool("authenticate-http-readonly", false, "who reads must prove who they are")
	f.Bool("authenticate-http-readwrite", false, "who changes something, or uses the operator API, must prove who they are")
	f.Bool("authenticate-http-frameworks", false, "frameworks that use HTTP must prove who they are")
	f.String("jwt-secret-key", "", "a file with the key that web tokens are signed with (HS256); default: none are taken")
	f.String("acls", "", "who may do what, in Mesos' JSON: the text, a file, or file:///path; default: everybody everything")
	f.String("rate-limits", "", "how fast frameworks may call, in Mesos' JSON: the text, a file, or file:///path; default: as they like")
}

// security reads what the flags name.
func security(v *viper.Viper) (auth server.Auth, limits *server.Limits, err error) {
	auth.ReadOnly, auth.ReadWrite, auth.Framework = v.GetBool("authenticate-http-readonly"), v.GetBool("authenticate-http-readwrite"), v.GetBool("authenticate-http-frameworks")
	auth.Agents, auth.Drivers = v.GetBool("authenticate-agents"), v.GetBool("authenticate-frameworks")
	if path := v.GetString("credentials"); path != "" {
		text, err := os.ReadFile(path)
		if err == nil {
			auth.Known, err = credentials.Parse(text)
		}
		if err != nil {
			return auth, nil, exit(exitUsage, "--credentials: %w", err)
		}
	}
	if path := v.GetString("jwt-secret-key"); path != "" {
		text, err := os.ReadFile(path)
		if err != nil {
			return auth, nil, exit(exitUsage, "--jwt-secret-key: %w", err)
		}
		if auth.TokenKey = []byte(strings.TrimRight(string(text), "\r\n")); len(auth.TokenKey) == 0 {
			return auth, nil, exit(exitUsage, "--jwt-secret-key: %s is empty; it must hold the key", path)
		}
	}
	if (auth.ReadOnly || auth.ReadWrite || auth.Framework) && auth.Known.Len() == 0 && len(auth.TokenKey) == 0 {
		return auth, nil, exit(exitUsage, "--authenticate-http-… needs --credentials or --jwt-secret-key: there is nobody who could prove anything")
	}
	if (auth.Agents || auth.Drivers) && auth.Known.Len() == 0 {
		return auth, nil, exit(exitUsage, "--authenticate-agents and --authenticate-frameworks need --credentials: nobody could prove who he is")
	}
	err = jsonFlag(v, "acls", func(text []byte) (err error) { auth.ACLs, err = authz.Parse(text); return err })
	if err == nil {
		err = jsonFlag(v, "rate-limits", func(text []byte) (err error) { limits, err = server.ParseLimits(text); return err })
	}
	return auth, limits, err
}

// jsonFlag reads a flag that is JSON or where that is, as Mesos' flags are.
func jsonFlag(v *viper.Viper, name string, parse func([]byte) error) error {
	text := v.GetString(name)
	if text == "" {
		return nil
	}
	if !strings.HasPrefix(strings.TrimSpace(text), "{") {
		file, err := os.ReadFile(strings.TrimPrefix(text, "file://"))
		if err != nil {
			return exit(exitUsage, "--%s: %w", name, err)
		}
		text = string(file)
	}
	if err := parse([]byte(text)); err != nil {
		return exit(exitUsage, "--%s: %w", name, err)
	}
	return nil
}

// identity is who one is to a master over HTTP; the zero value is nobody.
type identity struct{ principal, secret string }

const (
	principalUsage  = "who to be to the master (HTTP basic); default: nobody"
	secretFileUsage = "a file with the secret of --principal"
)

func identityFlags(f *pflag.FlagSet) {
	f.String("principal", "", principalUsage)
	f.String("secret-file", "", secretFileUsage)
}

func identityFrom(v *viper.Viper) (identity, error) {
	id, path := identity{principal: v.GetString("principal")}, v.GetString("secret-file")
	switch {
	case (path == "") != (id.principal == ""):
		return id, exit(exitUsage, "--principal and --secret-file belong together: a name and what proves it")
	case strings.Contains(id.principal, ":"):
		return id, exit(exitUsage, "--principal is %q; HTTP basic cannot carry a colon in it", id.principal)
	case path == "":
		return id, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return id, exit(exitUsage, "--secret-file: %w", err)
	}
	if id.secret = strings.TrimRight(string(text), "\r\n"); id.secret == "" {
		return id, exit(exitUsage, "--secret-file: %s is empty; it must hold the secret of %s", path, id.principal)
	}
	return id, nil
}

// sign adds who one is to a request.
func (id identity) sign(r *http.Request) {
	if id.principal != "" {
		r.SetBasicAuth(id.principal, id.secret)
	}
}
