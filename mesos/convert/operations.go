package convert

import (
	"fmt"

	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
	"github.com/mesopool/mesopool/resources"
)

// Operation reads an operation on resources. An error says that it is none that
// only changes marks, or what in it cannot be read.
func Operation(in *mesosv1.Offer_Operation) (resources.Operation, error) {
	var op resources.Operation
	var err error
	switch in.GetType() {
	case mesosv1.Offer_Operation_RESERVE:
		op.Kind = resources.OpReserve
		if op.Source, err = Resources(in.GetReserve().GetSource()); err == nil {
			op.Target, err = Resources(in.GetReserve().GetResources())
		}
	case mesosv1.Offer_Operation_UNRESERVE:
		op.Kind = resources.OpUnreserve
		op.Target, err = Resources(in.GetUnreserve().GetResources())
	case mesosv1.Offer_Operation_CREATE:
		op.Kind = resources.OpCreate
		op.Target, err = Resources(in.GetCreate().GetVolumes())
	case mesosv1.Offer_Operation_DESTROY:
		op.Kind = resources.OpDestroy
		op.Target, err = Resources(in.GetDestroy().GetVolumes())
	case mesosv1.Offer_Operation_GROW_VOLUME:
		op.Kind = resources.OpGrow
		if op.Volume, err = resource(in.GetGrowVolume().GetVolume()); err == nil {
			op.Addition, err = resource(in.GetGrowVolume().GetAddition())
		}
	case mesosv1.Offer_Operation_SHRINK_VOLUME:
		op.Kind = resources.OpShrink
		if op.Volume, err = resource(in.GetShrinkVolume().GetVolume()); err == nil {
			op.Subtract, err = resources.FromFloat(in.GetShrinkVolume().GetSubtract().GetValue())
		}
	default:
		err = fmt.Errorf("this agent does not carry out operations of type %s", in.GetType())
	}
	return op, err
}

// OperationTo is the inverse of Operation, for reservations and volumes.
func OperationTo(op *resources.Operation) *mesosv1.Offer_Operation {
	target := ResourcesTo(op.Target, Stack)
	switch op.Kind {
	case resources.OpReserve:
		return &mesosv1.Offer_Operation{
			Type:    mesosv1.Offer_Operation_RESERVE.Enum(),
			Reserve: &mesosv1.Offer_Operation_Reserve{Resources: target, Source: ResourcesTo(op.Source, Stack)},
		}
	case resources.OpUnreserve:
		return &mesosv1.Offer_Operation{Type: mesosv1.Offer_Operation_UNRESERVE.Enum(), Unreserve: &mesosv1.Offer_Operation_Unreserve{Resources: target}}
	case resources.OpCreate:
		return &mesosv1.Offer_Operation{Type: mesosv1.Offer_Operation_CREATE.Enum(), Create: &mesosv1.Offer_Operation_Create{Volumes: target}}
	default:
		return &mesosv1.Offer_Operation{Type: mesosv1.Offer_Operation_DESTROY.Enum(), Destroy: &mesosv1.Offer_Operation_Destroy{Volumes: target}}
	}
}

// CheckpointedTo writes resources in the oldest format that can tell them:
// stacks only where a reservation refines another.
func CheckpointedTo(in resources.Resources) []*mesosv1.Resource {
	out := make([]*mesosv1.Resource, 0, len(in))
	for i := range in {
		f := Role
		if len(in[i].Reservations) > 1 {
			f = Stack
		}
		out = append(out, resourceTo(&in[i], f))
	}
	return out
}
