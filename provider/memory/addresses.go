package memory

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/mesopool/mesopool/provider"
)

// quarantine is how many returned addresses wait before the oldest is given
// out again, so that a late packet rarely meets a newcomer.
const quarantine = 1024

// addresses hands out the hosts of an IPv4 network, as numbers.
type addresses struct {
	cidr  netip.Prefix
	next  uint32 // the first that was never given out
	last  uint32
	freed []uint32 // oldest first
}

// newAddresses leaves out the network's own address, the gateway's (the first)
// and the broadcast address.
func newAddresses(cidr netip.Prefix) addresses {
	base := cidr.Masked().Addr().As4()
	first := binary.BigEndian.Uint32(base[:])
	size := uint32(1) << (32 - cidr.Bits())
	return addresses{cidr: cidr, next: first + 2, last: first + size - 2}
}

func (a *addresses) take() (uint32, error) {
	fresh := a.next <= a.last
	if len(a.freed) > quarantine || !fresh && len(a.freed) > 0 {
		n := a.freed[0]
		a.freed = a.freed[1:]
		return n, nil
	}
	if !fresh {
		return 0, fmt.Errorf("%w: no address is left in %s", provider.ErrCapacity, a.cidr)
	}
	a.next++
	return a.next - 1, nil
}

func (a *addresses) put(n uint32) {
	if n != 0 {
		a.freed = append(a.freed, n)
	}
}

func addressText(n uint32) string {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], n)
	return netip.AddrFrom4(b).String()
}
