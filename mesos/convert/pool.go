package convert

import (
	"encoding/binary"
	"math"
	"sync"

	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
	"github.com/mesopool/mesopool/resources"
)

// pool keeps what was read lately, so that a million tasks of the same size keep
// one value between them.
type pool struct {
	mu    sync.Mutex
	known map[string]resources.Resources
}

// maxShared bounds the pool; beyond it, it begins anew.
const maxShared = 4096

var shared = &pool{known: map[string]resources.Resources{}}

func (p *pool) get(key []byte) (resources.Resources, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r, ok := p.known[string(key)]
	return r, ok
}

func (p *pool) put(key []byte, r resources.Resources) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.known) >= maxShared {
		clear(p.known)
	}
	p.known[string(key)] = r[:len(r):len(r)]
}

// plainKey writes what tells one list of resources from another, where all are
// scalars that nobody has reserved.
func plainKey(key []byte, in []*mesosv1.Resource) (_ []byte, plain bool) {
	for _, r := range in {
		if !isPlain(r) {
			return nil, false
		}
		for _, s := range []string{r.GetName(), r.GetAllocationInfo().GetRole()} {
			key = append(binary.AppendUvarint(key, uint64(len(s))), s...)
		}
		key = binary.LittleEndian.AppendUint64(key, math.Float64bits(r.Scalar.GetValue()))
	}
	return key, true
}

func isPlain(r *mesosv1.Resource) bool {
	return r.GetType() == mesosv1.Value_SCALAR && r.Scalar != nil && r.Ranges == nil && r.Set == nil && len(r.Reservations) == 0 &&
		r.Reservation == nil && r.GetRole() == "*" && r.Disk == nil && r.Revocable == nil && r.Shared == nil && r.ProviderId == nil
}
