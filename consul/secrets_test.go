package consul

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestSecrets(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/v1/kv/apps/db/password" && r.URL.Query().Has("consistent"):
			w.Write([]byte(`[{"Key":"apps/db/password","Value":"aGlkZGVu","ModifyIndex":1}]`))
		case r.URL.Path == "/v1/kv/apps/broken":
			http.Error(w, "no leader", http.StatusInternalServerError)
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	defer s.Close()
	kv := Secrets{Address: strings.TrimPrefix(s.URL, "http://"), Prefix: "apps/"}
	for _, source := range []string{"db/password", "/db/password"} {
		if got, err := kv.Secret(t.Context(), source); got != "hidden" || err != nil {
			t.Errorf("%s: %q %v", source, got, err)
		}
	}
	for source, why := range map[string]string{"none": "no such secret", "broken": "no leader"} {
		if got, err := kv.Secret(t.Context(), source); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %q %v", source, got, err)
		}
	}
}
