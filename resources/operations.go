package resources

import (
	"fmt"
	"slices"
)

// OperationKind is what an operation does to marks and volumes.
type OperationKind uint8

// The operations that change no amount, only what it is marked with
// (mesos.proto, Offer.Operation).
const (
	OpReserve OperationKind = iota + 1
	OpUnreserve
	OpCreate
	OpDestroy
	OpGrow
	OpShrink
)

// String is Mesos' name, such as RESERVE.
func (k OperationKind) String() string {
	names := [...]string{"UNKNOWN", "RESERVE", "UNRESERVE", "CREATE", "DESTROY", "GROW_VOLUME", "SHRINK_VOLUME"}
	if int(k) < len(names) {
		return names[k]
	}
	return names[0]
}

// Operation is one change of marks. Allocations in it are ignored.
type Operation struct {
	Kind     OperationKind
	Source   Resources // Reserve: what is taken; nil: the target without its innermost reservation
	Target   Resources // what Reserve and Create make, what Unreserve and Destroy undo
	Volume   Resource  // Grow, Shrink
	Addition Resource  // Grow
	Subtract Milli     // Shrink
}

// Apply returns r after the operation, or why it cannot be done; then r is as
// it was (common/resources_utils.cpp, getResourceConversions).
func (r Resources) Apply(op Operation) (Resources, error) {
	consumed, made, err := op.conversion()
	if err != nil {
		return nil, err
	}
	consumed, made = consumed.Allocated(""), made.Allocated("")
	if !r.Contains(consumed) {
		return nil, fmt.Errorf("%s needs %s, which is not in %s", op.Kind, consumed, r)
	}
	return r.Sub(consumed...).Add(made...), nil
}

func (op *Operation) conversion() (consumed, made Resources, err error) {
	switch op.Kind {
	case OpReserve:
		return op.reserve()
	case OpUnreserve:
		below, err := each(op.Target, popped)
		return op.Target, below, err
	case OpCreate:
		plain, err := each(op.Target, plainDisk)
		return plain, op.Target, err
	case OpDestroy:
		plain, err := each(op.Target, plainDisk)
		return op.Target, plain, err
	case OpGrow:
		return op.grow()
	case OpShrink:
		return op.shrink()
	}
	return nil, nil, fmt.Errorf("operation %d is none that changes marks", op.Kind)
}

func (op *Operation) reserve() (consumed, made Resources, err error) {
	if len(op.Source) > 0 {
		return op.Source, op.Target, nil
	}
	below, err := each(op.Target, popped)
	return below, op.Target, err
}

func (op *Operation) grow() (consumed, made Resources, err error) {
	if _, err := plainDisk(op.Volume); err != nil {
		return nil, nil, err
	}
	grown := op.Volume
	grown.Scalar += op.Addition.Scalar
	return Resources{}.Add(op.Volume, op.Addition), Resources{grown}, nil
}

func (op *Operation) shrink() (consumed, made Resources, err error) {
	freed, err := plainDisk(op.Volume)
	if err != nil {
		return nil, nil, err
	}
	if op.Subtract <= 0 || op.Subtract >= op.Volume.Scalar {
		return nil, nil, fmt.Errorf("a volume of %s cannot shrink by %s", op.Volume.Scalar, op.Subtract)
	}
	left := op.Volume
	left.Scalar -= op.Subtract
	freed.Scalar = op.Subtract
	return Resources{op.Volume}, Resources{}.Add(left, freed), nil
}

func each(in Resources, change func(Resource) (Resource, error)) (Resources, error) {
	if len(in) == 0 {
		return nil, fmt.Errorf("the operation names no resources")
	}
	var out Resources
	for _, x := range in {
		y, err := change(x)
		if err != nil {
			return nil, err
		}
		out = out.Add(y)
	}
	return out, nil
}

// popped is a resource without its innermost reservation, which must be one
// that an operation made.
func popped(x Resource) (Resource, error) {
	n := len(x.Reservations)
	if n == 0 || !x.Reservations[n-1].Dynamic {
		return x, fmt.Errorf("%s has no dynamic reservation", x)
	}
	if x.Persistent() {
		return x, fmt.Errorf("%s is a persistent volume; destroy it first", x)
	}
	x.Reservations = slices.Clone(x.Reservations[:n-1])
	return x, nil
}

// plainDisk is the disk that a persistent volume was made of.
func plainDisk(x Resource) (Resource, error) {
	if !x.Persistent() || x.Name != "disk" {
		return x, fmt.Errorf("%s is no persistent volume", x)
	}
	var left *Disk
	if x.Disk.Source != "" {
		left = &Disk{Source: x.Disk.Source}
	}
	x.Disk, x.Shared = left, false
	return x, nil
}

// Checkpointed returns what must outlive the agent: what operations have
// reserved, and persistent volumes (resources.cpp, needCheckpointing).
func (r Resources) Checkpointed() Resources {
	return r.Filter(func(x *Resource) bool {
		return x.Persistent() || slices.ContainsFunc(x.Reservations, func(v Reservation) bool { return v.Dynamic })
	})
}

// Stripped returns what r was before all operations: no dynamic reservations,
// no persistent volumes, no allocation.
func (r Resources) Stripped() Resources {
	var out Resources
	for _, x := range r {
		if x.Persistent() {
			if y, err := plainDisk(x); err == nil {
				x = y
			}
		}
		x.Role = ""
		var fixed []Reservation
		for _, v := range x.Reservations {
			if !v.Dynamic {
				fixed = append(fixed, v)
			}
		}
		x.Reservations = fixed
		out = out.Add(x)
	}
	return out
}
