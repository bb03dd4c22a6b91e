package server

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/mesopool/mesopool/mesos/mesosjson"
	masterv1 "github.com/mesopool/mesopool/mesos/v1/master"
)

// TestTaskLists: the answers that leave in pieces are those that one message
// would be.
func TestTaskLists(t *testing.T) {
	m := startMaster(t, "", nil)
	m.get(t, "/state") // it leads
	for _, n := range []int{0, 1, together, 2*together + 1, 9*together + 3} {
		snap := largeState(t, n)
		f := &snap.Frameworks[0]
		f.Done, f.Unreachable = f.Tasks[n/2:], f.Tasks[:n/3]
		state, err := m.getState(m.viewer(t.Context()), snap)
		if err != nil {
			t.Fatal(err)
		}
		for _, whole := range []*masterv1.Response{
			{Type: masterv1.Response_GET_STATE.Enum(), GetState: state}, {Type: masterv1.Response_GET_TASKS.Enum(), GetTasks: state.GetTasks},
		} {
			wire, err := proto.Marshal(whole)
			if err != nil {
				t.Fatal(err)
			}
			kind := masterv1.Call_Type(masterv1.Call_Type_value[whole.GetType().String()])
			for _, json := range []bool{false, true} {
				w := httptest.NewRecorder()
				if err := m.sendTasks(w, &http.Request{Header: http.Header{}}, kind, m.viewer(t.Context()), snap, json); err != nil {
					t.Fatal(err)
				}
				got, want := &masterv1.Response{}, &masterv1.Response{}
				if json {
					err = errors.Join(mesosjson.Unmarshal(w.Body.Bytes(), got), mesosjson.Unmarshal(appendJSON(nil, got.ProtoReflect().Descriptor(), wire), want))
				} else {
					err = errors.Join(proto.Unmarshal(w.Body.Bytes(), got), proto.Unmarshal(wire, want))
				}
				if err != nil || !proto.Equal(got, want) {
					t.Errorf("%s of %d tasks, json %v: error %v, %d bytes for %d", kind, n, json, err, w.Body.Len(), len(wire))
				}
				if length := w.Header().Get("Content-Length"); !json && length != strconv.Itoa(w.Body.Len()) {
					t.Errorf("%s of %d tasks: Content-Length %s, %d bytes", kind, n, length, w.Body.Len())
				}
			}
		}
	}
}
