package backend

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// MemoryConfig describes a simulated data center. The zero value provisions at
// once, has room for everything, and finds every image in its registry.
type MemoryConfig struct {
	// Provision is how long making a container takes, Pull how long an image.
	Provision, Pull time.Duration

	// MemoryMiB is what all containers together may have; 0 is no bound.
	MemoryMiB int

	// Catalog is what the simulated registry has, by name ("nginx:latest");
	// nil: every name, as an image that runs /bin/sh.
	Catalog map[string]Image

	// Fabric holds the accounts' private addresses (each account has all of
	// it), Public the public ones; zero: 10.0.0.0/8 and 100.64.0.0/10.
	Fabric, Public netip.Prefix

	// RestartDelay is the first delay before a restart, doubled each time, and
	// RestartReset the run time that makes it small again; 0: 100 ms and 10 s
	// (sdc-docker: docs/api/features/restart.md).
	RestartDelay, RestartReset time.Duration

	Faults Faults
}

// Faults are shares of calls, 0 to 1, that go wrong.
type Faults struct {
	Provision  float64 // making fails at its end
	NoCapacity float64 // no room
	Pull       float64 // an image cannot be fetched
}

// Memory is a simulated data center: containers that exist only in memory and
// live in real time. What a container does is read from its command and its
// variables as provider/memory understands them.
type Memory struct {
	cfg    MemoryConfig
	notify func(string, State)

	mu      sync.Mutex
	boxes   map[string]*box
	names   map[string]*box // account/name
	faults  Faults
	used    int // MiB
	fabrics map[string]*pool
	public  pool
	pids    int
	images  map[string]Image // pulled ones, by name
}

// NewMemory returns an empty data center.
func NewMemory(cfg MemoryConfig) *Memory {
	cfg.RestartDelay = cmp.Or(cfg.RestartDelay, 100*time.Millisecond)
	cfg.RestartReset = cmp.Or(cfg.RestartReset, 10*time.Second)
	if !cfg.Fabric.IsValid() {
		cfg.Fabric = netip.MustParsePrefix("10.0.0.0/8")
	}
	if !cfg.Public.IsValid() {
		cfg.Public = netip.MustParsePrefix("100.64.0.0/10")
	}
	return &Memory{
		cfg: cfg, notify: func(string, State) {}, faults: cfg.Faults, boxes: map[string]*box{}, names: map[string]*box{},
		fabrics: map[string]*pool{}, public: newPool(cfg.Public), images: map[string]Image{},
	}
}

// SetFaults changes the faults from now on.
func (m *Memory) SetFaults(f Faults) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.faults = f
}

func chance(share float64) bool { return share > 0 && rand.Float64() < share }

// Notify is part of Backend.
func (m *Memory) Notify(f func(string, State)) { m.notify = f }

// Load is part of Backend: nothing outlives the process.
func (m *Memory) Load(context.Context) ([]Found, error) { return nil, nil }

// Run is part of Backend. Timers do all the work.
func (m *Memory) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// FabricName is what an account's own network is called.
const FabricName = "My-Fabric-Network"

// Network is part of Backend.
func (m *Memory) Network(_ context.Context, account string) (Network, error) {
	return Network{Name: FabricName, UUID: UUIDOf("network/" + account), Subnet: m.cfg.Fabric, Gateway: m.cfg.Fabric.Addr().Next()}, nil
}

// UUIDOf derives a UUID from a name, always the same one.
func UUIDOf(name string) string {
	h := sha256.Sum256([]byte("mesopool endpoint " + name))
	h[6], h[8] = h[6]&0x0f|0x50, h[8]&0x3f|0x80
	s := hex.EncodeToString(h[:16])
	return s[:8] + "-" + s[8:12] + "-" + s[12:16] + "-" + s[16:20] + "-" + s[20:]
}

// wait lets time pass.
func wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Create is part of Backend.
func (m *Memory) Create(ctx context.Context, s *Spec) error {
	if err := m.admit(s); err != nil {
		return err
	}
	err := wait(ctx, m.cfg.Provision)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err == nil && chance(m.faults.Provision) {
		err = fmt.Errorf("injected fault: provisioning failed")
	}
	b := m.boxes[s.ID]
	if err == nil {
		b.nics, err = m.addresses(s)
	}
	if err != nil {
		m.drop(b)
		return err
	}
	b.tell()
	return nil
}

// admit reserves the name and the room.
func (m *Memory) admit(s *Spec) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := s.Account + "/" + s.Name
	switch {
	case m.names[key] != nil:
		return ErrNameTaken
	case chance(m.faults.NoCapacity):
		return fmt.Errorf("%w: injected fault", ErrCapacity)
	case m.cfg.MemoryMiB > 0 && m.used+s.MemoryMiB > m.cfg.MemoryMiB:
		return fmt.Errorf("%w: %d MiB of memory wanted, %d of %d free", ErrCapacity, s.MemoryMiB, m.cfg.MemoryMiB-m.used, m.cfg.MemoryMiB)
	}
	b := newBox(m, s)
	m.boxes[s.ID], m.names[key] = b, b
	m.used += s.MemoryMiB
	return nil
}

// drop forgets a box. The caller holds the lock.
func (m *Memory) drop(b *box) {
	b.halt()
	delete(m.boxes, b.spec.ID)
	delete(m.names, b.spec.Account+"/"+b.name)
	m.used -= b.spec.MemoryMiB
	for _, n := range b.nics {
		if n.Public {
			m.public.put(n.IP)
		} else {
			m.fabrics[b.spec.Account].put(n.IP)
		}
	}
	b.nics, b.gone = nil, true
	close(b.changed) // who follows it sees the end
	b.changed = make(chan struct{})
}

// addresses gives a private address to all, and a public one, which becomes the
// primary, to those that publish (sdc-docker: docs/api/features/networks.md).
func (m *Memory) addresses(s *Spec) ([]NIC, error) {
	fabric := m.fabrics[s.Account]
	if fabric == nil {
		p := newPool(m.cfg.Fabric)
		fabric = &p
		m.fabrics[s.Account] = fabric
	}
	ip, err := fabric.take()
	if err != nil {
		return nil, err
	}
	nics := []NIC{nic(FabricName, ip, m.cfg.Fabric, false)}
	if !s.Public {
		return nics, nil
	}
	if ip, err = m.public.take(); err != nil {
		fabric.put(nics[0].IP)
		return nil, err
	}
	return append([]NIC{nic(cmp.Or(s.PublicNet, "external"), ip, m.cfg.Public, true)}, nics...), nil
}

func nic(network string, ip netip.Addr, in netip.Prefix, public bool) NIC {
	b := ip.As4()
	return NIC{
		Network: network, Public: public, IP: ip, Bits: in.Bits(), Gateway: in.Masked().Addr().Next(),
		MAC: fmt.Sprintf("90:b8:%02x:%02x:%02x:%02x", b[0], b[1], b[2], b[3]),
	}
}

// pool hands out the addresses of a prefix; the network's own and the first,
// the gateway's, are left out.
type pool struct {
	in   netip.Prefix
	next netip.Addr
	free []netip.Addr
}

func newPool(in netip.Prefix) pool { return pool{in: in, next: in.Masked().Addr().Next().Next()} }

func (p *pool) take() (netip.Addr, error) {
	if n := len(p.free); n > 0 {
		ip := p.free[n-1]
		p.free = p.free[:n-1]
		return ip, nil
	}
	if !p.in.Contains(p.next.Next()) {
		return netip.Addr{}, fmt.Errorf("%w: no free address in %s", ErrCapacity, p.in)
	}
	ip := p.next
	p.next = ip.Next()
	return ip, nil
}

func (p *pool) put(ip netip.Addr) { p.free = append(p.free, ip) }

// find returns a box with the lock held; unlock when done, also on an error.
func (m *Memory) find(id string) (*box, error) {
	m.mu.Lock()
	if b := m.boxes[id]; b != nil {
		return b, nil
	}
	return nil, fmt.Errorf("container %.12s: %w", id, ErrNotFound)
}

// Start is part of Backend.
func (m *Memory) Start(_ context.Context, id string) error {
	b, err := m.find(id)
	defer m.mu.Unlock()
	if err != nil {
		return err
	}
	b.autoboot = true
	if b.state.Phase != Running {
		b.halt()
		b.start()
	}
	return nil
}

// Stop is part of Backend.
func (m *Memory) Stop(ctx context.Context, id string, grace time.Duration) error {
	b, err := m.find(id)
	if err != nil {
		m.mu.Unlock()
		return err
	}
	b.autoboot = false
	if b.state.Phase != Running {
		b.halt() // no restart that waits
		m.mu.Unlock()
		return nil
	}
	if !b.what.Deaf {
		b.exit(-15)
		m.mu.Unlock()
		return nil
	}
	ended := b.changed
	m.mu.Unlock()
	t := time.NewTimer(grace)
	defer t.Stop()
	select {
	case <-ended:
		return nil
	case <-t.C:
	case <-ctx.Done():
	}
	return m.signal(id, 9)
}

// Kill is part of Backend. A simulated container ends by any signal that it
// is not deaf to.
func (m *Memory) Kill(_ context.Context, id string, signal int) error { return m.signal(id, signal) }

func (m *Memory) signal(id string, signal int) error {
	b, err := m.find(id)
	defer m.mu.Unlock()
	if err != nil {
		return err
	}
	if b.state.Phase == Running && (signal == 9 || !b.what.Deaf) {
		b.exit(-signal)
	}
	return nil
}

// Rename is part of Backend.
func (m *Memory) Rename(_ context.Context, id, name string) error {
	b, err := m.find(id)
	defer m.mu.Unlock()
	if err != nil {
		return err
	}
	if m.names[b.spec.Account+"/"+name] != nil {
		return ErrNameTaken
	}
	delete(m.names, b.spec.Account+"/"+b.name)
	b.name = name
	m.names[b.spec.Account+"/"+name] = b
	return nil
}

// Remove is part of Backend.
func (m *Memory) Remove(_ context.Context, id string) error {
	b, err := m.find(id)
	defer m.mu.Unlock()
	if err == nil {
		m.drop(b)
	}
	return nil
}

// Pull is part of Images.
func (m *Memory) Pull(ctx context.Context, ref, _ string, progress io.Writer) (Image, error) {
	fmt.Fprintf(progress, "{\"status\":\"Pulling from %s\"}\n", strings.Split(ref, ":")[0])
	if err := wait(ctx, m.cfg.Pull); err != nil {
		return Image{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	i, known := m.catalog(ref)
	if !known {
		return Image{}, fmt.Errorf("image %s: %w", ref, ErrNotFound)
	}
	if chance(m.faults.Pull) {
		return Image{}, fmt.Errorf("injected fault: %s cannot be fetched", ref)
	}
	m.images[ref] = i
	fmt.Fprintf(progress, "{\"status\":\"Status: Downloaded newer image for %s\"}\n", ref)
	return i, nil
}

func (m *Memory) catalog(ref string) (Image, bool) {
	i, known := m.cfg.Catalog[ref]
	if m.cfg.Catalog == nil {
		i, known = Image{Cmd: []string{"/bin/sh"}, Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}, Size: 100 << 20}, true
	}
	if i.ID == "" {
		sum := sha256.Sum256([]byte(ref))
		i.ID = "sha256:" + hex.EncodeToString(sum[:])
	}
	i.Names = []string{ref}
	return i, known
}

// Local is part of Images.
func (m *Memory) Local(_ context.Context, ref string) (Image, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	i, there := m.images[ref]
	if !there && m.cfg.Catalog != nil {
		i, there = m.catalog(ref)
	}
	if !there {
		return Image{}, fmt.Errorf("image %s: %w", ref, ErrNotFound)
	}
	return i, nil
}

// AllLocal is part of Images.
func (m *Memory) AllLocal(context.Context) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []string
	for name := range m.images {
		all = append(all, name)
	}
	slices.Sort(all)
	return all, nil
}
