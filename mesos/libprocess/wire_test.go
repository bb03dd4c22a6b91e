package libprocess

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestUPID(t *testing.T) {
	for _, tt := range []struct{ in, want, err string }{
		{"slave(1)@10.0.0.7:5051", "slave(1)@10.0.0.7:5051", ""},
		{"@10.0.0.7:5051", "@10.0.0.7:5051", ""},
		{"@0.0.0.0:0", "@0.0.0.0:0", ""},
		{"a@[::1]:80", "a@[::1]:80", ""},
		{"a@[::ffff:10.0.0.7]:80", "a@10.0.0.7:80", ""},
		{"a@localhost:80", "a@127.0.0.1:80", ""},
		{"garbage", "", "id@host:port"},
		{"a@10.0.0.7", "", "id@host:port"},
		{"a@:80", "", "id@host:port"},
		{"a@10.0.0.7:99999", "", "id@host:port"},
		{"a@no-such-host.invalid:80", "", "no-such-host.invalid"},
	} {
		got, err := ParseUPID(tt.in)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%s: error %v, want one with %q", tt.in, err, tt.err)
			}
			continue
		}
		if err != nil || got.String() != tt.want {
			t.Errorf("%s: %s, %v, want %s", tt.in, got, err, tt.want)
		}
	}
	if u, err := ParseUPID("@0.0.0.0:0"); err != nil || !u.IsZero() {
		t.Errorf("nobody: %v, %v", u, err)
	}
	if u, err := parseSender("a@localhost:80"); err == nil {
		t.Errorf("sender with a name: %v", u)
	}
}

const usualHead = "POST /slave(1)/mesos.internal.PingSlaveMessage HTTP/1.1\r\n" +
	"User-Agent: libprocess/slave-observer(1)@127.0.0.1:5050\r\n" +
	"Libprocess-From: slave-observer(1)@127.0.0.1:5050\r\n" +
	"Connection: Keep-Alive\r\n" +
	"Host: 127.0.0.1:5051\r\n"

func TestAppendMessage(t *testing.T) {
	for _, tt := range []struct{ to, body, want string }{
		{"slave(1)", "0123456789abcdef", usualHead + "Transfer-Encoding: chunked\r\n\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n"},
		{"slave(1)", "", usualHead + "\r\n"},
		{"", "", strings.Replace(usualHead, "/slave(1)", "", 1) + "\r\n"},
	} {
		got := appendMessage(nil, "127.0.0.1:5051", "slave-observer(1)", "127.0.0.1:5050", tt.to, "mesos.internal.PingSlaveMessage", []byte(tt.body))
		if diff := cmp.Diff(tt.want, string(got)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}

func TestParse(t *testing.T) {
	edit := func(old, replacement string) string { return strings.Replace(usualHead, old, replacement, 1) }
	for _, tt := range []struct {
		name, in string
		want     verdict
		body     string
	}{
		{"without a body", usualHead + "\r\n", complete, ""},
		{"one chunk", usualHead + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", complete, "abc"},
		{"no chunk", usualHead + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", complete, ""},
		{"content length", usualHead + "Content-Length: 3\r\n\r\nabc", complete, "abc"},
		{"only From", edit("User-Agent: libprocess/slave-observer(1)@127.0.0.1:5050\r\n", "") + "\r\n", complete, ""},
		{"only User-Agent", edit("Libprocess-From: slave-observer(1)@127.0.0.1:5050\r\n", "") + "\r\n", complete, ""},
		{"two chunks", usualHead + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n", unusual, ""},
		{"chunk extension", usualHead + "Transfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\n\r\n", unusual, ""},
		{"huge chunk", usualHead + "Transfer-Encoding: chunked\r\n\r\n7fffffff\r\n", unusual, ""},
		{"huge content length", usualHead + "Content-Length: 2147483647\r\n\r\n", unusual, ""},
		{"chunk length without end", usualHead + "Transfer-Encoding: chunked\r\n\r\n00000000001", unusual, ""},
		{"both lengths", usualHead + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", unusual, ""},
		{"two lengths", usualHead + "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc", unusual, ""},
		{"gzip", usualHead + "Content-Encoding: gzip\r\n\r\n", unusual, ""},
		{"Connection: close", edit("Keep-Alive", "close") + "\r\n", unusual, ""},
		{"HTTP/1.0", edit("HTTP/1.1", "HTTP/1.0") + "\r\n", unusual, ""},
		{"query", edit("Message ", "Message?a=b ") + "\r\n", unusual, ""},
		{"other case", edit("Libprocess-From", "libprocess-from") + "\r\n", unusual, ""},
		{"no sender", "POST /api/v1 HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}", unusual, ""},
		{"GET", "GET /", unusual, ""},
		{"G", "G", unusual, ""},
		{"long head", usualHead + "Host: " + strings.Repeat("x", maxHead), unusual, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, v := parse([]byte(tt.in))
			if v != tt.want {
				t.Fatalf("verdict %d, want %d", v, tt.want)
			}
			if v != complete {
				return
			}
			got := []string{string(r.to), string(r.name), string(r.from), string(r.body)}
			want := []string{"slave(1)", "mesos.internal.PingSlaveMessage", "slave-observer(1)@127.0.0.1:5050", tt.body}
			if diff := cmp.Diff(want, got); diff != "" || r.size != len(tt.in) {
				t.Errorf("size %d of %d (-want +got):\n%s", r.size, len(tt.in), diff)
			}
			for i := range len(tt.in) {
				if _, v := parse([]byte(tt.in[:i])); v != partial {
					t.Fatalf("verdict %d of the first %d bytes, want partial", v, i)
				}
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(usualHead + "\r\n"))
	f.Add([]byte(usualHead + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nPOST /"))
	f.Add([]byte(usualHead + "Content-Length: 3\r\n\r\nabcd"))
	f.Fuzz(func(t *testing.T, in []byte) {
		r, v := parse(in)
		if v != complete {
			return
		}
		if r.size > len(in) || len(r.body) > r.size {
			t.Fatalf("%d bytes of %d", r.size, len(in))
		}
		again, v := parse(append(bytes.Clone(in[:r.size]), "more"...))
		if v != complete || again.size != r.size || !bytes.Equal(again.body, r.body) {
			t.Fatal("what comes after a message changes it")
		}
	})
}
