package libprocess

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	_ "github.com/mesopool/mesopool/mesos/messages"
)

// stream is one direction of a TCP connection.
type stream struct{ from, to netip.AddrPort }

type segment struct {
	seq  uint32
	data []byte
}

// readPcap returns the bytes of every stream in a capture of IPv4 over Ethernet.
func readPcap(t *testing.T, file string) map[stream][]byte {
	t.Helper()
	in := bytes.Clone(readShared(t, file))
	if binary.LittleEndian.Uint32(in) != 0xa1b2c3d4 || binary.LittleEndian.Uint32(in[20:]) != 1 {
		t.Fatalf("%s: not a little-endian capture of Ethernet frames", file)
	}
	segments := map[stream][]segment{}
	for in = in[24:]; len(in) > 0; {
		n := binary.LittleEndian.Uint32(in[8:])
		if s, seg, ok := tcpSegment(in[16 : 16+n]); ok {
			segments[s] = append(segments[s], seg)
		}
		in = in[16+n:]
	}
	streams := map[stream][]byte{}
	for s, segs := range segments {
		streams[s] = reassemble(t, segs)
	}
	return streams
}

func readShared(t *testing.T, file string) []byte {
	t.Helper()
	in, err := os.ReadFile(filepath.Join("..", "..", "..", "shared", "captures", file))
	if errors.Is(err, os.ErrNotExist) {
		t.Skipf("%s: no ../shared/captures/%s beside the repository", t.Name(), file)
	}
	if err != nil {
		t.Fatal(err)
	}
	return in
}

func tcpSegment(frame []byte) (s stream, seg segment, ok bool) {
	const ethernet, ipv4, tcp = 14, 0x0800, 6
	if len(frame) < ethernet+20 || binary.BigEndian.Uint16(frame[12:]) != ipv4 || frame[ethernet+9] != tcp {
		return s, seg, false
	}
	ip := frame[ethernet:]
	ip = ip[:binary.BigEndian.Uint16(ip[2:])]
	seg4 := ip[int(ip[0]&15)*4:]
	s.from = netip.AddrPortFrom(netip.AddrFrom4([4]byte(ip[12:])), binary.BigEndian.Uint16(seg4))
	s.to = netip.AddrPortFrom(netip.AddrFrom4([4]byte(ip[16:])), binary.BigEndian.Uint16(seg4[2:]))
	data := seg4[int(seg4[12]>>4)*4:]
	return s, segment{binary.BigEndian.Uint32(seg4[4:]), data}, len(data) > 0
}

func reassemble(t *testing.T, segs []segment) []byte {
	t.Helper()
	base := segs[0].seq
	slices.SortStableFunc(segs, func(a, b segment) int { return int(int32(a.seq-base) - int32(b.seq-base)) })
	base = segs[0].seq
	var out []byte
	for _, s := range segs {
		switch at := int(s.seq - base); {
		case at > len(out):
			t.Fatalf("capture lacks %d bytes", at-len(out))
		case at+len(s.data) > len(out):
			out = append(out, s.data[len(out)-at:]...)
		}
	}
	return out
}

// All messages between genuine masters, agents and executors are understood,
// and written again they are the same bytes.
func TestCapture(t *testing.T) {
	for file, want := range map[string]int{"reg_task.pcap": 31, "ns.pcap": 115, "ns-docker.pcap": 21} {
		t.Run(file, func(t *testing.T) {
			n := 0
			for s, in := range readPcap(t, file) {
				for len(in) > 0 {
					r, v := parse(in)
					if v != complete {
						break
					}
					checkMessage(t, s, r, in[:r.size])
					in = in[r.size:]
					n++
				}
				if bytes.Contains(in, []byte("Libprocess-From")) {
					t.Errorf("%v: message not understood: %q", s, in)
				}
			}
			if n != want {
				t.Errorf("%d messages, want %d", n, want)
			}
		})
	}
}

func checkMessage(t *testing.T, s stream, r request, raw []byte) {
	t.Helper()
	from, err := parseSender(string(r.from))
	if err != nil {
		t.Error(err)
	}
	again := appendMessage(nil, s.to.String(), from.ID, from.Addr.String(), string(r.to), string(r.name), r.body)
	if diff := cmp.Diff(string(raw), string(again)); diff != "" {
		t.Errorf("(-genuine +own):\n%s", diff)
	}
	mt, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName(r.name))
	if err != nil {
		t.Errorf("%s: %v", r.name, err)
		return
	}
	m := mt.New().Interface()
	if err := proto.Unmarshal(r.body, m); err != nil {
		t.Errorf("%s: %v", r.name, err)
	}
	body, err := proto.Marshal(m)
	if err != nil || !bytes.Equal(body, r.body) {
		t.Errorf("%s: written again it differs (error %v):\n%x\n%x", r.name, err, r.body, body)
	}
	checkKnown(t, m.ProtoReflect())
}

// checkKnown fails if anything in m is unknown to our .proto files.
func checkKnown(t *testing.T, m protoreflect.Message) {
	t.Helper()
	if len(m.GetUnknown()) > 0 {
		t.Errorf("%s has unknown fields: %x", m.Descriptor().FullName(), m.GetUnknown())
	}
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.Message() == nil || fd.IsMap():
		case fd.IsList():
			for i := range v.List().Len() {
				checkKnown(t, v.List().Get(i).Message())
			}
		default:
			checkKnown(t, v.Message())
		}
		return true
	})
}
