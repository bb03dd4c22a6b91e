package resources

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func pool(t *testing.T, text string) Resources {
	t.Helper()
	r, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func reservedFor(role string, r Resources) Resources {
	var out Resources
	for _, x := range r {
		x.Reservations = append(append([]Reservation(nil), x.Reservations...), Reservation{Dynamic: true, Role: role, Principal: "p"})
		out = out.Add(x)
	}
	return out
}

func volume(id string, mib int64) Resource {
	x := reservedFor("db", NewScalar("disk", Whole(mib)))[0]
	x.Disk = &Disk{PersistenceID: id, ContainerPath: "data"}
	return x
}

func TestOperations(t *testing.T) {
	total := pool(t, "cpus:4;mem:1024;disk:1000;ports:[1-10]")
	step := func(op Operation) {
		t.Helper()
		next, err := total.Apply(op)
		if err != nil {
			t.Fatal(err)
		}
		total = next
	}
	start := total
	part := reservedFor("db", pool(t, "cpus:1;disk:600;ports:[3-4]"))
	step(Operation{Kind: OpReserve, Target: part.Allocated("db")})
	step(Operation{Kind: OpCreate, Target: Resources{volume("v", 500)}})
	step(Operation{Kind: OpGrow, Volume: volume("v", 500), Addition: reservedFor("db", NewScalar("disk", Whole(100)))[0]})
	if !total.Contains(Resources{volume("v", 600)}) || total.Amount("disk") != Whole(1000) {
		t.Errorf("after growth: %s", total)
	}
	if !total.Stripped().Equal(start) || len(total.Checkpointed()) != 3 {
		t.Errorf("stripped %s, kept %s", total.Stripped(), total.Checkpointed())
	}
	step(Operation{Kind: OpShrink, Volume: volume("v", 600), Subtract: Whole(200)})
	step(Operation{Kind: OpDestroy, Target: Resources{volume("v", 400)}})
	step(Operation{Kind: OpReserve, Source: reservedFor("db", NewScalar("cpus", 1000)), Target: reservedFor("web", NewScalar("cpus", 1000))})
	step(Operation{Kind: OpReserve, Source: reservedFor("web", NewScalar("cpus", 1000)), Target: reservedFor("db", NewScalar("cpus", 1000))})
	step(Operation{Kind: OpUnreserve, Target: part})
	if !total.Equal(start) || len(total.Checkpointed()) != 0 {
		t.Errorf("in the end %s", total)
	}
}

func TestOperationsThatCannotBe(t *testing.T) {
	total := pool(t, "cpus:4;disk:100")
	kept := total.Sub(NewScalar("disk", Whole(50))...).Add(volume("v", 50))
	for name, x := range map[string]struct {
		op   Operation
		want string
	}{
		"too much":           {Operation{Kind: OpReserve, Target: reservedFor("db", NewScalar("cpus", 4001))}, "RESERVE needs cpus:4.001"},
		"nothing":            {Operation{Kind: OpReserve}, "names no resources"},
		"not reserved":       {Operation{Kind: OpUnreserve, Target: NewScalar("cpus", 1)}, "no dynamic reservation"},
		"a volume's":         {Operation{Kind: OpUnreserve, Target: Resources{volume("v", 50)}}, "destroy it first"},
		"no volume":          {Operation{Kind: OpCreate, Target: NewScalar("disk", 1)}, "no persistent volume"},
		"a part of a volume": {Operation{Kind: OpDestroy, Target: Resources{volume("v", 49)}}, "DESTROY needs"},
		"shrink to nothing":  {Operation{Kind: OpShrink, Volume: volume("v", 50), Subtract: Whole(50)}, "cannot shrink"},
		"grow by what is not there": {
			Operation{Kind: OpGrow, Volume: volume("v", 50), Addition: reservedFor("db", NewScalar("disk", 1))[0]}, "GROW_VOLUME needs",
		},
		"none": {Operation{}, "is none"},
	} {
		if got, err := kept.Apply(x.op); err == nil || got != nil || !strings.Contains(err.Error(), x.want) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

// Whatever is reserved and given back, the amounts stay what they were.
func TestOperationsKeepAmounts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		total, err := Parse("cpus:8;mem:100;cpus(x):2")
		if err != nil {
			t.Fatal(err)
		}
		start := total
		for range rapid.IntRange(1, 20).Draw(t, "steps") {
			x := rapid.SampledFrom(total).Draw(t, "of")
			x.Scalar = Milli(rapid.Int64Range(1, int64(x.Scalar)).Draw(t, "amount"))
			op := Operation{Kind: OpUnreserve, Target: Resources{x}}
			if rapid.Bool().Draw(t, "reserve") {
				op = Operation{Kind: OpReserve, Target: reservedFor(rapid.SampledFrom([]string{"a", "b"}).Draw(t, "role"), Resources{x})}
			}
			next, err := total.Apply(op)
			if err == nil {
				total = next
			}
			if !total.Stripped().Equal(start) {
				t.Fatalf("%s of %s made %s", op.Kind, x, total)
			}
		}
	})
}

func TestSplitAndTimes(t *testing.T) {
	r := pool(t, "cpus:10;mem:100;ports:[1-5];disk:0.001")
	var sum Scalars
	for i, share := range r.Split(3) {
		sum = sum.Add(share.Scalars())
		if want := []Milli{3334, 3333, 3333}[i]; share.Amount("cpus") != want || !share.Contains(pool(t, "ports:[1-5]")) {
			t.Errorf("share %d is %s", i, share)
		}
	}
	if !sum.Contains(r.Scalars()) || !r.Scalars().Contains(sum) {
		t.Errorf("the shares are %s of %s", sum, r)
	}
	if got := r.Times(1500, "cpus", "mem").String(); got != "cpus:15; mem:150; ports:[1-5]; disk:0.001" {
		t.Errorf("half as much again: %s", got)
	}
}
