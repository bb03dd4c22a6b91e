package libprocess

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// UPID is the address of an actor. Its text is id@ip:port. The zero UPID is
// nobody, as text @0.0.0.0:0; masters send it for frameworks without one.
type UPID struct {
	ID   string
	Addr netip.AddrPort
}

var nobody = netip.AddrPortFrom(netip.IPv4Unspecified(), 0)

// String returns id@ip:port.
func (u UPID) String() string { return string(u.append(nil)) }

func (u UPID) append(dst []byte) []byte {
	addr := u.Addr
	if !addr.IsValid() {
		addr = nobody
	}
	return addr.AppendTo(append(append(dst, u.ID...), '@'))
}

func compareUPID(a, b UPID) int {
	return cmp.Or(a.Addr.Compare(b.Addr), strings.Compare(a.ID, b.ID))
}

// IsZero says whether u is nobody.
func (u UPID) IsZero() bool { return u == UPID{} }

// resolveTime is how long ParseUPID waits for a name server.
const resolveTime = 5 * time.Second

// ParseUPID reads id@host:port. A host that is no address is looked up, for an
// IPv4 address, and the first answer counts.
func ParseUPID(s string) (UPID, error) {
	u, host, port, err := splitUPID(s)
	if err != nil || host == "" {
		return u, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), resolveTime)
	defer cancel()
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip4", host)
	if err != nil {
		return UPID{}, fmt.Errorf("libprocess: host of %q: %w", s, err)
	}
	u.Addr = netip.AddrPortFrom(ips[0].Unmap(), port)
	return u, nil
}

// splitUPID reads id@host:port; host is empty when it was an address.
func splitUPID(s string) (u UPID, host string, port uint16, err error) {
	id, rest, ok := strings.Cut(s, "@")
	if !ok {
		return u, "", 0, fmt.Errorf("libprocess: %q is not of the form id@host:port", s)
	}
	if addr, err := netip.ParseAddrPort(rest); err == nil {
		return newUPID(id, addr), "", 0, nil
	}
	i := strings.LastIndexByte(rest, ':')
	n, err := strconv.ParseUint(rest[i+1:], 10, 16)
	if i <= 0 || err != nil {
		return u, "", 0, fmt.Errorf("libprocess: %q is not of the form id@host:port", s)
	}
	return UPID{ID: id}, rest[:i], uint16(n), nil
}

func newUPID(id string, addr netip.AddrPort) UPID {
	if addr == nobody && id == "" {
		return UPID{}
	}
	return UPID{ID: id, Addr: netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())}
}

var errHostName = errors.New("libprocess: a sender must give its address, not a host name")

// parseSender reads who a message says it is from. It looks no names up: a
// stranger's header must not make us wait.
func parseSender(s string) (UPID, error) {
	u, host, _, err := splitUPID(strings.TrimSpace(s))
	if err == nil && host != "" {
		return UPID{}, errHostName
	}
	return u, err
}
