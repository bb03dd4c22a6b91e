package server

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mesopool/mesopool/mesos/recordio"
)

// post sends a body and returns the answer with its text.
func (m *testMaster) post(t testing.TB, path, body string, header ...string) (*http.Response, string) {
	t.Helper()
	return m.ask(t, http.MethodPost, path, body, header...)
}

func (m *testMaster) get(t testing.TB, path string, header ...string) (*http.Response, string) {
	t.Helper()
	return m.ask(t, http.MethodGet, path, "", header...)
}

func (m *testMaster) ask(t testing.TB, method, path, body string, header ...string) (*http.Response, string) {
	t.Helper()
	resp := m.open(t, method, path, body, header...)
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(text)
}

func (m *testMaster) open(t testing.TB, method, path, body string, header ...string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+m.addr+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	transport := &http.Transport{DisableCompression: true, DisableKeepAlives: true}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

// value is a part of a JSON document.
type value map[string]any

// path walks down by names and, in lists, by numbers; nil when there is no
// such thing.
func (v value) path(steps ...any) any {
	var at any = map[string]any(v)
	for _, step := range steps {
		switch x := at.(type) {
		case map[string]any:
			at = x[fmt.Sprint(step)]
		case []any:
			i, ok := step.(int)
			if !ok || i >= len(x) {
				return nil
			}
			at = x[i]
		default:
			return nil
		}
	}
	return at
}

func parseJSON(t testing.TB, text string) value {
	t.Helper()
	var v value
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v in %.200s", err, text)
	}
	return v
}

// jsonStream is an event stream as a simple client reads it.
type jsonStream struct {
	*testMaster
	id      string
	body    io.Closer
	records *recordio.Reader
	offers  value // not used yet, see follow
}

func jsonSubscribe(name, id string) string {
	if id == "" {
		return `{"type":"SUBSCRIBE","framework_id":null,"subscribe":{"framework_info":{"user":"root","name":"` + name + `","failover_timeout":3600,"id":null,"roles":null}}}`
	}
	return `{"type":"SUBSCRIBE","framework_id":{"value":"` + id + `"},"subscribe":{"framework_info":{"user":"root","name":"` + name + `","failover_timeout":3600,"id":{"value":"` + id + `"}}}}`
}

func subscribe(t testing.TB, m *testMaster, body string) *jsonStream {
	t.Helper()
	resp := m.open(t, http.MethodPost, "/master/api/v1/scheduler", body, "Content-Type", typeJSON, "Accept", typeJSON)
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != typeJSON || len(resp.Header.Get(streamHeader)) != 36 {
		text, _ := io.ReadAll(resp.Body)
		t.Fatalf("SUBSCRIBE: %s %v %s", resp.Status, resp.Header, text)
	}
	return &jsonStream{testMaster: m, id: resp.Header.Get(streamHeader), body: resp.Body, records: recordio.NewReader(resp.Body, 4<<20)}
}

// next waits for an event of one of some types.
func (s *jsonStream) next(t testing.TB, kinds ...string) value {
	t.Helper()
	timeout := time.AfterFunc(patience, func() { s.body.Close() })
	defer timeout.Stop()
	for {
		record, err := s.records.Next()
		if err != nil {
			t.Fatalf("no %s came: %v", strings.Join(kinds, " or "), err)
		}
		v := parseJSON(t, string(record))
		if kind, _ := v["type"].(string); slices.Contains(kinds, kind) {
			return v
		}
	}
}

// end reads on until the master closes the stream.
func (s *jsonStream) end(t testing.TB) {
	t.Helper()
	for {
		if _, err := s.records.Next(); err != nil {
			if err != io.EOF {
				t.Errorf("the stream ended with %v", err)
			}
			return
		}
	}
}

// call posts a call as the framework and expects it to be taken.
func (s *jsonStream) call(t testing.TB, id, body string) {
	t.Helper()
	body = fmt.Sprintf(body, id)
	resp, text := s.post(t, "/api/v1/scheduler", body, "Content-Type", typeJSON, streamHeader, s.id)
	if resp.StatusCode != http.StatusAccepted || text != "" {
		t.Fatalf("%s: %s %s", body, resp.Status, text)
	}
}

func mustMarshal(t testing.TB, m proto.Message) string {
	t.Helper()
	out, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return string(bytes.Clone(out))
}
