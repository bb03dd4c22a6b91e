package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"
	"github.com/spf13/viper"

	"github.com/mesopool/mesopool/master/authz"
)

func securityOf(t *testing.T, args ...string) (*viper.Viper, error) {
	t.Helper()
	f := pflag.NewFlagSet("test", pflag.ContinueOnError)
	securityFlags(f)
	identityFlags(f)
	if err := f.Parse(args); err != nil {
		t.Fatal(err)
	}
	v := viper.New()
	if err := v.BindPFlags(f); err != nil {
		t.Fatal(err)
	}
	if _, _, err := security(v); err != nil {
		return v, err
	}
	_, err := identityFrom(v)
	return v, err
}

func TestSecurityFlags(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	known, empty := file("known", "a s\n"), file("empty", "\n")
	for _, x := range []struct{ args, want string }{
		{"", ""},
		{"--credentials=" + known + " --authenticate-http-readonly", ""},
		{"--jwt-secret-key=" + known + " --authenticate-http-frameworks", ""},
		{"--authenticate-http-readwrite", "needs --credentials or --jwt-secret-key"},
		{"--credentials=" + dir + "/none", "--credentials"},
		{"--credentials=" + file("odd", "a b c"), "line 1 has 3 words"},
		{"--jwt-secret-key=" + empty, "is empty"},
		{"--acls={\"x\":[]}", `--acls: acls: "x" is no list`},
		{"--acls=" + dir + "/none", "--acls"},
		{"--acls=file://" + file("acls", "{}"), ""},
		{"--rate-limits={\"limits\":[{}]}", "--rate-limits: rate limits: limits[0] has no principal"},
		{"--principal=a", "belong together"},
		{"--secret-file=" + known, "belong together"},
		{"--principal=a:b --secret-file=" + known, "colon"},
		{"--principal=a --secret-file=" + empty, "is empty"},
		{"--principal=a --secret-file=" + dir + "/none", "--secret-file"},
		{"--principal=a --secret-file=" + known, ""},
	} {
		_, err := securityOf(t, strings.Fields(x.args)...)
		if x.want == "" && err != nil || x.want != "" && (err == nil || !strings.Contains(err.Error(), x.want)) {
			t.Errorf("%s: %v, want %q", x.args, err, x.want)
		}
	}
	v, err := securityOf(t, "--acls", `{"permissive": false}`, "--credentials", known, "--rate-limits", `{"aggregate_default_qps": 1}`)
	if err != nil {
		t.Fatal(err)
	}
	auth, limits, err := security(v)
	if err != nil || limits == nil || !auth.Known.Check("a", "s") || auth.ACLs.Allows(authz.Subject{}, authz.ViewFlags) {
		t.Errorf("%+v, %v, %v", auth, limits, err)
	}
}
