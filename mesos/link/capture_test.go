package link

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/mesopool/mesopool/mesos/convert"
	"github.com/mesopool/mesopool/mesos/messages"
)

// payload is the data of every TCP stream in a capture of IPv4 over Ethernet,
// by its two addresses.
func payload(t *testing.T, file string) map[string][]byte {
	t.Helper()
	in, err := os.ReadFile(filepath.Join("..", "..", "..", "shared", "captures", file))
	if errors.Is(err, os.ErrNotExist) {
		t.Skipf("%s: no ../shared/captures/%s beside the repository", t.Name(), file)
	}
	if err != nil {
		t.Fatal(err)
	}
	type segment struct {
		seq  uint32
		data []byte
	}
	segments := map[string][]segment{}
	for in = in[24:]; len(in) > 0; {
		n := binary.LittleEndian.Uint32(in[8:])
		frame := in[16 : 16+n]
		in = in[16+n:]
		if len(frame) < 34 || binary.BigEndian.Uint16(frame[12:]) != 0x0800 || frame[23] != 6 {
			continue
		}
		ip := frame[14:]
		ip = ip[:binary.BigEndian.Uint16(ip[2:])]
		tcp := ip[int(ip[0]&15)*4:]
		if data := tcp[int(tcp[12]>>4)*4:]; len(data) > 0 {
			stream := string(ip[12:20]) + string(tcp[:4])
			segments[stream] = append(segments[stream], segment{binary.BigEndian.Uint32(tcp[4:]), data})
		}
	}
	out := map[string][]byte{}
	for stream, list := range segments {
		base := list[0].seq
		slices.SortStableFunc(list, func(a, b segment) int { return int(int32(a.seq-base) - int32(b.seq-base)) })
		base = list[0].seq
		for _, s := range list {
			if at := int(s.seq - base); at <= len(out[stream]) && at+len(s.data) > len(out[stream]) {
				out[stream] = append(out[stream], s.data[len(out[stream])-at:]...)
			}
		}
	}
	return out
}

// captured returns the bodies of all messages of a name.
func captured(t *testing.T, file, name string) (out [][]byte) {
	t.Helper()
	for _, data := range payload(t, file) {
		r := bufio.NewReader(bytes.NewReader(data))
		for {
			req, err := http.ReadRequest(r)
			if err != nil {
				break
			}
			body, err := io.ReadAll(req.Body)
			if err != nil {
				t.Fatal(err)
			}
			if strings.HasSuffix(req.URL.Path, "/mesos.internal."+name) {
				out = append(out, body)
			}
		}
	}
	return out
}

// Tasks as a genuine master sends them can be run here.
func TestCapturedTasks(t *testing.T) {
	total := 0
	for _, file := range []string{"reg_task.pcap", "ns.pcap", "ns-docker.pcap"} {
		for _, body := range captured(t, file, "RunTaskMessage") {
			m := &messages.RunTaskMessage{}
			if err := proto.Unmarshal(body, m); err != nil {
				t.Fatal(err)
			}
			total++
			checkCaptured(t, m)
		}
	}
	if total < 5 {
		t.Errorf("only %d tasks were found in the captures", total)
	}
}

func checkCaptured(t *testing.T, m *messages.RunTaskMessage) {
	t.Helper()
	f := framework(m.Framework)
	s, err := convert.Spec(f.ID, m.Task)
	if err == nil {
		err = unsupported(&s)
	}
	if err != nil {
		t.Errorf("task %s: %v", m.Task.GetTaskId().GetValue(), err)
		return
	}
	if f.ID == "" || len(f.Origin) == 0 || s.Key.ID == "" || s.Resources.Amount("cpus") <= 0 || s.Resources.Amount("mem") <= 0 {
		t.Errorf("framework %+v, spec %+v", f, s)
	}
	if s.Command.Value == "" && len(s.Command.Args) == 0 && s.Image == "" {
		t.Errorf("task %s does nothing: %+v", s.Key.ID, s)
	}
	for i := range s.Resources {
		if s.Resources[i].Role == "" {
			t.Errorf("task %s: %v is allocated to nobody", s.Key.ID, s.Resources[i])
		}
	}
}
