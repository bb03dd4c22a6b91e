package convert

import (
	"errors"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
	"github.com/mesopool/mesopool/resources"
)

// Resources reads resources in any of Mesos' three formats
// (common/resources_utils.cpp): reservations as a stack, or as a role with an
// optional reservation. It refuses what Resources::validate refuses. The result
// may be shared with others, as all Resources may.
func Resources(in []*mesosv1.Resource) (resources.Resources, error) {
	var room [128]byte
	key, plain := plainKey(room[:0], in)
	if plain {
		if known, ok := shared.get(key); ok {
			return known, nil
		}
	}
	out, err := read(in)
	if plain && err == nil {
		shared.put(key, out)
	}
	return out, err
}

func read(in []*mesosv1.Resource) (resources.Resources, error) {
	out := make(resources.Resources, 0, len(in))
	for i, r := range in {
		x, err := resource(r)
		if err != nil {
			return nil, fmt.Errorf("resource %d (%s): %w", i, r.GetName(), err)
		}
		out = out.Add(x)
	}
	return out, nil
}

func resource(r *mesosv1.Resource) (resources.Resource, error) {
	if r == nil {
		return resources.Resource{}, errors.New("it is missing")
	}
	x := resources.Resource{Name: r.GetName(), Role: r.GetAllocationInfo().GetRole(), Revocable: r.Revocable != nil, Shared: r.Shared != nil}
	if x.Name == "" {
		return x, fmt.Errorf("the name is empty")
	}
	x.Provider = r.GetProviderId().GetValue()
	x.Disk = disk(r.Disk)
	x.Reservations = reservations(r)
	var err error
	switch r.GetType() {
	case mesosv1.Value_SCALAR:
		if r.Scalar == nil || r.Ranges != nil || r.Set != nil {
			return x, fmt.Errorf("type SCALAR needs a scalar and nothing else")
		}
		x.Scalar, err = resources.FromFloat(r.GetScalar().GetValue())
	case mesosv1.Value_RANGES:
		x.Kind = resources.KindRanges
		x.Ranges, err = ranges(r.GetRanges())
	case mesosv1.Value_SET:
		x.Kind = resources.KindSet
		x.Set = slices.Sorted(slices.Values(r.GetSet().GetItem()))
	default:
		err = fmt.Errorf("type %v cannot be an amount", r.GetType())
	}
	return x, err
}

func ranges(in *mesosv1.Value_Ranges) (resources.Ranges, error) {
	list := make([]resources.Range, 0, len(in.GetRange()))
	for _, r := range in.GetRange() {
		list = append(list, resources.Range{Begin: r.GetBegin(), End: r.GetEnd()})
	}
	return resources.NewRanges(list...)
}

func reservations(r *mesosv1.Resource) []resources.Reservation {
	if len(r.Reservations) == 0 {
		if r.GetRole() == "*" {
			return nil
		}
		one := resources.Reservation{Role: r.GetRole()}
		if r.Reservation != nil {
			one.Dynamic, one.Principal, one.Labels = true, r.Reservation.GetPrincipal(), reservationLabels(r.Reservation.GetLabels())
		}
		return []resources.Reservation{one}
	}
	out := make([]resources.Reservation, 0, len(r.Reservations))
	for _, v := range r.Reservations {
		out = append(out, resources.Reservation{
			Dynamic: v.GetType() == mesosv1.Resource_ReservationInfo_DYNAMIC, Role: v.GetRole(), Principal: v.GetPrincipal(), Labels: reservationLabels(v.GetLabels()),
		})
	}
	return out
}

func reservationLabels(in *mesosv1.Labels) []resources.Label {
	var out []resources.Label
	for _, l := range in.GetLabels() {
		out = append(out, resources.Label{Key: l.GetKey(), Value: l.GetValue()})
	}
	return out
}

// disk keeps the source as its canonical bytes, which is enough to tell disks
// apart and to write them out again.
func disk(d *mesosv1.Resource_DiskInfo) *resources.Disk {
	if d == nil {
		return nil
	}
	out := &resources.Disk{
		PersistenceID: d.GetPersistence().GetId(), Principal: d.GetPersistence().GetPrincipal(),
		ContainerPath: d.GetVolume().GetContainerPath(), ReadOnly: d.GetVolume().GetMode() == mesosv1.Volume_RO,
	}
	if d.Source != nil {
		source, err := proto.MarshalOptions{Deterministic: true}.Marshal(d.Source)
		if err == nil {
			out.Source = string(source)
		}
	}
	return out
}

// Format chooses how reservations are written.
type Format uint8

// The formats: Stack is for those with RESERVATION_REFINEMENT, Role for older
// frameworks, Both for JSON.
const (
	Stack Format = iota
	Role
	Both
)

// ResourcesTo writes resources in the format. Refined reservations cannot be
// written in Role format; they are left out.
func ResourcesTo(in resources.Resources, f Format) []*mesosv1.Resource {
	out := make([]*mesosv1.Resource, 0, len(in))
	for i := range in {
		if f == Role && len(in[i].Reservations) > 1 {
			continue
		}
		out = append(out, resourceTo(&in[i], f))
	}
	return out
}

func resourceTo(x *resources.Resource, f Format) *mesosv1.Resource {
	r := &mesosv1.Resource{Name: &x.Name}
	switch x.Kind {
	case resources.KindRanges:
		r.Type = mesosv1.Value_RANGES.Enum()
		r.Ranges = &mesosv1.Value_Ranges{}
		for _, v := range x.Ranges {
			r.Ranges.Range = append(r.Ranges.Range, &mesosv1.Value_Range{Begin: &v.Begin, End: &v.End})
		}
	case resources.KindSet:
		r.Type = mesosv1.Value_SET.Enum()
		r.Set = &mesosv1.Value_Set{Item: x.Set}
	default:
		r.Type = mesosv1.Value_SCALAR.Enum()
		r.Scalar = &mesosv1.Value_Scalar{Value: new(x.Scalar.Float())}
	}
	if x.Role != "" {
		r.AllocationInfo = &mesosv1.Resource_AllocationInfo{Role: &x.Role}
	}
	if x.Provider != "" {
		r.ProviderId = &mesosv1.ResourceProviderID{Value: &x.Provider}
	}
	if x.Revocable {
		r.Revocable = &mesosv1.Resource_RevocableInfo{}
	}
	if x.Shared {
		r.Shared = &mesosv1.Resource_SharedInfo{}
	}
	r.Disk = diskTo(x.Disk)
	reservationsTo(r, x, f)
	return r
}

func reservationsTo(r *mesosv1.Resource, x *resources.Resource, f Format) {
	if f != Role {
		for i := range x.Reservations {
			r.Reservations = append(r.Reservations, reservationTo(&x.Reservations[i]))
		}
	}
	if f == Stack {
		return
	}
	r.Role = new(x.ReservedTo())
	if n := len(x.Reservations); n == 1 && x.Reservations[0].Dynamic {
		r.Reservation = reservationTo(&x.Reservations[0])
		r.Reservation.Type, r.Reservation.Role = nil, nil
	}
}

func reservationTo(v *resources.Reservation) *mesosv1.Resource_ReservationInfo {
	out := &mesosv1.Resource_ReservationInfo{Type: mesosv1.Resource_ReservationInfo_STATIC.Enum(), Role: &v.Role}
	if v.Dynamic {
		out.Type = mesosv1.Resource_ReservationInfo_DYNAMIC.Enum()
	}
	if v.Principal != "" {
		out.Principal = &v.Principal
	}
	if len(v.Labels) > 0 {
		out.Labels = &mesosv1.Labels{}
		for _, l := range v.Labels {
			out.Labels.Labels = append(out.Labels.Labels, &mesosv1.Label{Key: new(l.Key), Value: new(l.Value)})
		}
	}
	return out
}

func diskTo(d *resources.Disk) *mesosv1.Resource_DiskInfo {
	if d == nil {
		return nil
	}
	out := &mesosv1.Resource_DiskInfo{}
	if d.PersistenceID != "" {
		out.Persistence = &mesosv1.Resource_DiskInfo_Persistence{Id: &d.PersistenceID}
		if d.Principal != "" {
			out.Persistence.Principal = &d.Principal
		}
	}
	if d.ContainerPath != "" {
		mode := mesosv1.Volume_RW
		if d.ReadOnly {
			mode = mesosv1.Volume_RO
		}
		out.Volume = &mesosv1.Volume{ContainerPath: &d.ContainerPath, Mode: &mode}
	}
	if d.Source != "" {
		source := &mesosv1.Resource_DiskInfo_Source{}
		if proto.Unmarshal([]byte(d.Source), source) == nil {
			out.Source = source
		}
	}
	return out
}
