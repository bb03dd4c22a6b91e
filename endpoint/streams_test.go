package endpoint

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/mesopool/mesopool/endpoint/backend"
)

// hijack sends a request that takes its connection over.
func (c *client) hijack(path, body string) (*tls.Conn, *bufio.Reader) {
	c.r.t.Helper()
	cfg := c.http.Transport.(*http.Transport).TLSClientConfig.Clone()
	cfg.NextProtos = nil
	cfg.ServerName = "127.0.0.1"
	conn, err := tls.Dial("tcp", strings.TrimPrefix(c.r.url, "https://"), cfg)
	if err != nil {
		c.r.t.Fatal(err)
	}
	c.r.t.Cleanup(func() { conn.Close() })
	fmt.Fprintf(conn, "POST /v1.24%s HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: %d\r\n\r\n%s", path, len(body), body)
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		c.r.t.Fatalf("%v, %v", resp, err)
	}
	return conn, r
}

// TestAttachBeforeStart: who attaches first misses nothing, as "docker run"
// needs it.
func TestAttachBeforeStart(t *testing.T) {
	c := plainRig(t).newTenant("a")
	id := c.create("x", body("exit", nil))
	_, r := c.hijack("/containers/"+id+"/attach?stream=1&stdout=1&stderr=1", "")
	c.want(204, "", "POST", "/containers/x/start", nil)
	got, err := io.ReadAll(r)
	if err != nil || string(got) != "\x01\x00\x00\x00\x00\x00\x00\x04out\n\x02\x00\x00\x00\x00\x00\x00\x04err\n" {
		t.Errorf("%q, %v", got, err)
	}
}

// TestExecInput: the input's end reaches the command, and its output still comes.
func TestExecInput(t *testing.T) {
	c := plainRig(t).newTenant("a")
	c.start("x", "run", nil)
	var made struct{ ID string }
	json.Unmarshal([]byte(c.want(200, "", "POST", "/containers/x/exec", m{"Cmd": []string{"cat"}, "AttachStdin": true, "AttachStdout": true, "Tty": true}).text), &made)
	conn, r := c.hijack("/exec/"+made.ID+"/start", `{"Tty":true}`)
	if _, err := io.WriteString(conn, "hello"); err != nil {
		t.Fatal(err)
	}
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); err != nil || string(got) != "hello" {
		t.Errorf("%q, %v", got, err)
	}
}

// TestArchive: files go in before the start and come out again.
func TestArchive(t *testing.T) {
	c := plainRig(t).newTenant("a")
	c.create("x", body("run", nil))
	c.want(404, "(ResourceNotFound) Could not find the file /d/f in container", "GET", "/containers/x/archive?path=/d/f", nil)
	c.want(500, "problem copying files of container", "PUT", "/containers/x/archive?path=/d", "no archive at all, but long enough for a header"+strings.Repeat("x", 1024))
	c.want(422, "", "GET", "/containers/x/archive", nil)
}

func BenchmarkTenants(b *testing.B) {
	cloud, err := Open(b.Context(), Config{Dir: b.TempDir(), Backend: backend.NewMemory(backend.MemoryConfig{})})
	if err != nil {
		b.Fatal(err)
	}
	fill := func(login string, n int) *Account {
		acct, err := cloud.Accounts().Add(login)
		if err != nil {
			b.Fatal(err)
		}
		if err := cloud.Pull(b.Context(), acct, "run:1", "", io.Discard); err != nil {
			b.Fatal(err)
		}
		for i := range n {
			if _, err := cloud.Create(b.Context(), acct, fmt.Sprintf("c%d", i), []byte(`{"Image":"run:1","HostConfig":{"Memory":134217728}}`)); err != nil {
				b.Fatal(err)
			}
		}
		return acct
	}
	large, small := fill("large", 100_000), fill("small", 10)
	b.Run("list 10 beside 100000", func(b *testing.B) {
		for b.Loop() {
			cloud.Containers(small, nil)
		}
	})
	b.Run("list 100000", func(b *testing.B) {
		for b.Loop() {
			cloud.Containers(large, nil)
		}
	})
	b.Run("create and remove beside 100000", func(b *testing.B) {
		for b.Loop() {
			id, err := cloud.Create(b.Context(), large, "x", []byte(`{"Image":"run:1","HostConfig":{"Memory":134217728}}`))
			if err != nil {
				b.Fatal(err)
			}
			if err := cloud.Remove(b.Context(), large, id, true); err != nil {
				b.Fatal(err)
			}
		}
	})
}
