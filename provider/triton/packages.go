package triton

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/joyent/triton-go/compute"

	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/task"
)

// packageLabel names the package that a container gets (sdc-docker:
// docs/api/features/packages.md).
const packageLabel = "com.joyent.package"

// pack is a package that tasks can get, and what is billed for it.
type pack struct {
	name string
	id   string
	size resources.Scalars
}

// catalog keeps the packages for a while: they change seldom.
type catalog struct {
	mu   sync.Mutex
	all  []pack // the smallest first
	read time.Time
}

const catalogAge = 5 * time.Minute

// Size is part of provider.Sizer: what is billed is the whole package.
func (d *Datacenter) Size(ctx context.Context, s task.Spec) (resources.Scalars, error) {
	p, err := d.choose(ctx, &s)
	if err != nil {
		return nil, fmt.Errorf("triton: %w", err)
	}
	if p == nil {
		return s.Resources.Scalars(), nil
	}
	return p.size, nil
}

// choose is the package that a task names, or the smallest that has all that it
// wants; nil where nobody tells what there is.
func (d *Datacenter) choose(ctx context.Context, s *task.Spec) (*pack, error) {
	if d.cloud == nil {
		return nil, nil
	}
	all, err := d.packages(ctx)
	if err != nil {
		return nil, err
	}
	if name, pinned := s.Label(packageLabel); pinned {
		return named(all, name)
	}
	want := s.Resources.Scalars()
	for _, limit := range s.Limits { // a package is a limit as well
		if limit.Amount < resources.MaxMilli && limit.Amount > want.Get(limit.Name) {
			want = want.Add(resources.Scalars{{Name: limit.Name, Amount: limit.Amount - want.Get(limit.Name)}})
		}
	}
	return smallest(all, want)
}

// named: a package goes by its name, its UUID or the first eight digits of that.
func named(all []pack, name string) (*pack, error) {
	for i, p := range all {
		if p.name == name || p.id == name || len(name) == 8 && strings.HasPrefix(p.id, name) {
			return &all[i], nil
		}
	}
	return nil, fmt.Errorf("%w: there is no package %q: %s", provider.ErrRejected, name, offered(all))
}

func smallest(all []pack, want resources.Scalars) (*pack, error) {
	for i, p := range all {
		if p.size.Contains(ofPackages(want)) {
			return &all[i], nil
		}
	}
	return nil, fmt.Errorf("%w: no package fits %s: %s", provider.ErrRejected, ofPackages(want), offered(all))
}

// ofPackages leaves out what no package tells of, such as gpus.
func ofPackages(want resources.Scalars) resources.Scalars {
	return slices.DeleteFunc(slices.Clone(want), func(x resources.Scalar) bool { return x.Name != "cpus" && x.Name != "mem" && x.Name != "disk" })
}

func offered(all []pack) string {
	if len(all) == 0 {
		return "there is none at all; is the prefix of their names right?"
	}
	last := all[len(all)-1]
	return fmt.Sprintf("there are %d, the largest is %s with %s", len(all), last.name, last.size)
}

// packages are those that a container can have, the smallest first.
func (d *Datacenter) packages(ctx context.Context) ([]pack, error) {
	c := &d.catalog
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.read) < catalogAge {
		return c.all, nil
	}
	list, err := d.cloud.packages(ctx)
	if err != nil {
		if c.all != nil {
			return c.all, nil // an old list is better than no launch
		}
		return nil, err
	}
	c.all, c.read = c.all[:0:0], time.Now()
	for i := range list {
		if strings.HasPrefix(list[i].Name, d.o.PackagePrefix) && list[i].Memory > 0 {
			c.all = append(c.all, d.pack(&list[i]))
		}
	}
	slices.SortStableFunc(c.all, func(a, b pack) int {
		return cmp.Or(cmp.Compare(a.size.Get("mem"), b.size.Get("mem")), cmp.Compare(a.size.Get("cpus"), b.size.Get("cpus")),
			cmp.Compare(a.size.Get("disk"), b.size.Get("disk")), strings.Compare(a.name, b.name))
	})
	return c.all, nil
}

// pack: the processors of a container package are often not told (sdc-cloudapi:
// lib/packages.js); then they go with its memory.
func (d *Datacenter) pack(p *compute.Package) pack {
	cpus := resources.Whole(p.VCPUs)
	if cpus == 0 {
		cpus = resources.Milli(float64(p.Memory) / 1024 * d.o.CPUsPerGiB * 1000)
	}
	return pack{name: p.Name, id: p.ID, size: resources.NewScalars(
		resources.Scalar{Name: "cpus", Amount: cpus},
		resources.Scalar{Name: "mem", Amount: resources.Whole(p.Memory)},
		resources.Scalar{Name: "disk", Amount: resources.Whole(p.Disk)},
	)}
}
