package server

import (
	"net/netip"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/mesopool/mesopool/master"
	"github.com/mesopool/mesopool/mesos/libprocess"
	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
)

// registry is what requests need to know at once, without asking the core:
// which frameworks there are and on which stream, and how agents describe
// themselves. The loop keeps it up to date before anybody is told.
type registry struct {
	mu         sync.RWMutex
	frameworks map[string]*enrolled
	streams    map[string]*stream // by stream ID
	agents     map[string]*agentCard
}

// enrolled is a framework that the core knows.
type enrolled struct {
	stream *stream           // nil while it is disconnected
	driver libprocess.UPID   // its driver, or the last one; zero: HTTP
	roles  map[string]string // role by offer, when there are several roles
}

// agentCard is what every offer of an agent repeats.
type agentCard struct {
	hostname   string
	pid        string
	url        *mesosv1.URL
	attributes []*mesosv1.Attribute
	domain     *mesosv1.DomainInfo
	limits     bool // TASK_RESOURCE_LIMITS
}

func (r *registry) init() {
	r.frameworks = map[string]*enrolled{}
	r.streams = map[string]*stream{}
	r.agents = map[string]*agentCard{}
}

func (r *registry) addStream(st *stream) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.streams[st.id] = st
}

func (r *registry) stream(id string) *stream {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.streams[id]
}

// connect notes which stream a framework is on.
func (r *registry) connect(framework string, st *stream) {
	r.mu.Lock()
	defer r.mu.Unlock()
	info := *st.info.Load()
	info.ID = framework
	st.info.Store(&info)
	r.frameworks[framework] = &enrolled{stream: st, driver: st.driver, roles: map[string]string{}}
}

// closeStream ends a stream after what was sent on it before.
func (r *registry) closeStream(id string) {
	if st := r.stream(id); st != nil {
		r.disconnect(st)
		st.end()
	}
}

// disconnect takes a stream away from its framework, which stays known.
func (r *registry) disconnect(st *stream) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.streams, st.id)
	for _, f := range r.frameworks {
		if f.stream == st {
			f.stream = nil
		}
	}
}

// away lists the frameworks that are disconnected.
func (r *registry) away() []string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var out []string
	for id, f := range r.frameworks {
		if f.stream == nil {
			out = append(out, id)
		}
	}
	return out
}

// refresh asks the core about frameworks that a batch has touched.
func (r *registry) refresh(core *master.Core, ids []string) {
	if len(ids) == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range ids {
		stream, known := core.Stream(id)
		f := r.frameworks[id]
		switch {
		case !known:
			delete(r.frameworks, id)
		case f == nil:
			r.frameworks[id] = &enrolled{roles: map[string]string{}}
		case f.stream != nil && f.stream.id != stream:
			f.stream = nil
		}
	}
}

// caller returns the stream of a framework, nil if it is not subscribed, and
// whether it is known at all.
func (r *registry) caller(framework string) (st *stream, known bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	f := r.frameworks[framework]
	if f == nil {
		return nil, false
	}
	return f.stream, true
}

// offered notes the roles of offers to a framework that has several.
func (r *registry) offered(framework string, offers []*master.Offer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f := r.frameworks[framework]
	if f == nil || f.stream == nil || len(f.stream.info.Load().Roles) < 2 {
		return
	}
	for _, o := range offers {
		f.roles[o.ID] = o.Role
	}
}

// answered forgets the offers of a call and returns the role of the first.
func (r *registry) answered(info *master.FrameworkInfo, offers []*mesosv1.OfferID) string {
	switch len(info.Roles) {
	case 0:
		return "*"
	case 1:
		return info.Roles[0]
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	role := info.Roles[0]
	f := r.frameworks[info.ID]
	if f == nil {
		return role
	}
	for i, o := range offers {
		if known, ok := f.roles[o.GetValue()]; ok && i == 0 {
			role = known
		}
		delete(f.roles, o.GetValue())
	}
	return role
}

func (r *registry) rescinded(framework, offer string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if f := r.frameworks[framework]; f != nil {
		delete(f.roles, offer)
	}
}

func (r *registry) persisted(p master.Persist) {
	if p.Agent != nil {
		r.setAgent(p.Agent)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.agents, p.ID)
}

func (r *registry) setAgent(a *master.AgentInfo) {
	card := newCard(a)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.agents[a.ID] = card
}

// agent never returns nil.
func (r *registry) agent(id string) *agentCard {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if c := r.agents[id]; c != nil {
		return c
	}
	return &agentCard{}
}

func newCard(a *master.AgentInfo) *agentCard {
	c := &agentCard{hostname: a.Hostname, pid: a.PID, limits: a.TaskResourceLimits}
	info := &mesosv1.AgentInfo{}
	if (proto.UnmarshalOptions{AllowPartial: true}).Unmarshal(a.Origin, info) == nil {
		c.attributes, c.domain = info.Attributes, info.Domain
	}
	pid, err := libprocess.ParseUPID(a.PID)
	if err != nil {
		return c
	}
	// The scheme is http even where TLS is spoken (master.cpp, offer).
	c.url = &mesosv1.URL{Scheme: new("http"), Path: new("/" + pid.ID), Address: &mesosv1.Address{
		Hostname: &a.Hostname, Ip: new(pid.Addr.Addr().String()), Port: new(int32(pid.Addr.Port())),
	}}
	return c
}

// masterInfo is how this master describes itself to frameworks.
func (s *Server) masterInfo() *mesosv1.MasterInfo {
	addr := s.UPID().Addr
	ip, port := addr.Addr().String(), addr.Port()
	hostname := s.cfg.Hostname
	if hostname == "" {
		hostname = ip
	}
	return &mesosv1.MasterInfo{
		Id: &s.cfg.ID, Ip: new(networkOrder(addr.Addr())), Port: new(uint32(port)), Pid: new(s.UPID().String()),
		Hostname: &hostname, Version: &s.cfg.Version,
		Address: &mesosv1.Address{Hostname: &hostname, Ip: &ip, Port: new(int32(port))},
		Capabilities: []*mesosv1.MasterInfo_Capability{
			{Type: mesosv1.MasterInfo_Capability_AGENT_UPDATE.Enum()},
			{Type: mesosv1.MasterInfo_Capability_AGENT_DRAINING.Enum()},
			{Type: mesosv1.MasterInfo_Capability_QUOTA_V2.Enum()},
		},
	}
}

// networkOrder is an IPv4 address's bytes in network order read as a
// little-endian number, as Mesos prints it; 0 for IPv6.
func networkOrder(a netip.Addr) uint32 {
	if !a.Is4() {
		return 0
	}
	b := a.As4()
	return uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24
}
