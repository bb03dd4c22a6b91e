package endpoint

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"

	"github.com/mesopool/mesopool/endpoint/backend"
)

// Package is a size that containers are sold in.
type Package struct {
	UUID        string   `json:"id"`
	Name        string   `json:"name"`
	MemoryMiB   int      `json:"memory"`
	DiskMiB     int      `json:"disk"`
	SwapMiB     int      `json:"swap"`
	VCPUs       int      `json:"vcpus"`
	LWPs        int      `json:"lwps"`
	Version     string   `json:"version,omitempty"`
	Group       string   `json:"group,omitempty"`
	Description string   `json:"description,omitempty"`
	Default     bool     `json:"default"`
	CPUCap      int      `json:"cpu_cap,omitempty"`    // hundredths of a processor; CloudAPI does not tell it
	CPUShares   int      `json:"cpu_shares,omitempty"` // 0: an eighth of the memory
	Owners      []string `json:"owners,omitempty"`     // logins; none: everybody's
}

// DefaultPrefix is what names of packages that are chosen by memory begin with
// (sdc-docker: sapi_manifests/docker/template, PACKAGE_PREFIX).
const DefaultPrefix = "sample-"

// DefaultMemoryMiB is what a container without a wish for memory gets.
const DefaultMemoryMiB = 1024

// DefaultPackages are doubling sizes with a processor for every GiB.
func DefaultPackages() []Package {
	var all []Package
	for mib := 128; mib <= 64<<10; mib *= 2 {
		name := strconv.Itoa(mib) + "M"
		if mib >= 1024 {
			name = strconv.Itoa(mib/1024) + "G"
		}
		all = append(all, Package{
			Name: DefaultPrefix + name, MemoryMiB: mib, DiskMiB: mib * 25, SwapMiB: mib * 4, LWPs: 4000, Version: "1.0.0",
			Group: "Sample", Description: "Sample " + name, Default: mib == DefaultMemoryMiB, CPUCap: max(mib*100/1024, 13),
		})
	}
	return all
}

// ReadPackages reads a JSON list of packages.
func ReadPackages(file string) ([]Package, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var all []Package
	if err := json.Unmarshal(text, &all); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if err := completePackages(all); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return all, nil
}

// completePackages checks packages and fills in what was left out.
func completePackages(all []Package) error {
	names := map[string]bool{}
	for i := range all {
		p := &all[i]
		switch {
		case !packageForm.MatchString(p.Name) || len(p.Name) > 128:
			return fmt.Errorf("package %d has the name %q; it must have letters, digits and single _-. between them", i, p.Name)
		case names[p.Name]:
			return fmt.Errorf("there are two packages called %s", p.Name)
		case p.MemoryMiB <= 0 || p.DiskMiB < 0 || p.CPUCap < 0:
			return fmt.Errorf("package %s needs memory above 0, and no negative numbers", p.Name)
		}
		names[p.Name] = true
		if p.UUID == "" {
			p.UUID = backend.UUIDOf("package/" + p.Name)
		}
		if p.CPUShares == 0 {
			p.CPUShares = max(p.MemoryMiB/8, 2)
		}
	}
	if len(all) == 0 {
		return errors.New("there must be at least one package")
	}
	return nil
}

// visible says whether an account may use it.
func (p *Package) visible(a *Account) bool {
	for _, o := range p.Owners {
		if o == a.Login {
			return true
		}
	}
	return len(p.Owners) == 0
}

// Packages returns what the account may use.
func (c *Cloud) Packages(a *Account) []*Package {
	var all []*Package
	for i := range c.cfg.Packages {
		if p := &c.cfg.Packages[i]; p.visible(a) {
			all = append(all, p)
		}
	}
	return all
}

// packageForm has no two separators side by side.
var packageForm = regexp.MustCompile(`^[a-zA-Z0-9]([_.-]?[a-zA-Z0-9])*$`)

// PackageLabel names a package on a container.
const PackageLabel = "com.joyent.package"

// choosePackage takes the labelled package, else the smallest that has the
// memory; of equals the first (sdc-docker: lib/backends/sdc/containers.js).
func (c *Cloud) choosePackage(a *Account, label string, labelled bool, memory int64) (*Package, error) {
	if labelled {
		return c.namedPackage(a, label)
	}
	mib := int64(DefaultMemoryMiB)
	if memory > 0 {
		mib = (memory + 1<<20 - 1) >> 20
	}
	var best *Package
	candidates := 0
	for _, p := range c.Packages(a) {
		if !strings.HasPrefix(p.Name, c.cfg.Prefix) {
			continue
		}
		candidates++
		if int64(p.MemoryMiB) >= mib && (best == nil || p.MemoryMiB < best.MemoryMiB) {
			best = p
		}
	}
	switch {
	case candidates == 0:
		return nil, internal("no packages match parameters")
	case best == nil:
		return nil, &Error{422, "NoSufficientPackage", "no package supports the given container constraints: memory=" + memoryText(memory)}
	}
	return best, nil
}

// namedPackage finds a package by name, UUID or the UUID's first 8 digits.
func (c *Cloud) namedPackage(a *Account, label string) (*Package, error) {
	if !packageForm.MatchString(label) {
		return nil, internal("invalid value for %s: %s", PackageLabel, label)
	}
	for _, p := range c.Packages(a) {
		if p.Name == label || p.UUID == label || len(label) == 8 && strings.HasPrefix(p.UUID, label) {
			return p, nil
		}
	}
	return nil, internal("no packages match parameters")
}

// memoryText writes bytes as people do: 65g.
func memoryText(n int64) string {
	for _, u := range []struct {
		size int64
		name string
	}{{1 << 30, "g"}, {1 << 20, "m"}, {1 << 10, "k"}} {
		if n >= u.size && n%u.size == 0 {
			return strconv.FormatInt(n/u.size, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10) + "b"
}
