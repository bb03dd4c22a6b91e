package link

import (
	"context"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"time"

	"github.com/mesopool/mesopool/mesos/crammd5"
	"github.com/mesopool/mesopool/mesos/libprocess"
)

// proof is what a registration with a credential needs first. A master forgets
// it with the connection (master.cpp, exited), so each registration begins anew.
type proof struct {
	link  *Link
	given libprocess.UPID // who believes us
	tries int
}

func (p *proof) void() { p.given = libprocess.UPID{} }

// give authenticates with a master. False means that it should be tried again,
// an error that it is in vain (slave.cpp, _authenticate).
func (p *proof) give(ctx context.Context, master libprocess.UPID) (bool, error) {
	l := p.link
	if l.cfg.Credential == nil || p.given == master {
		return true, nil
	}
	wait := min(l.patient<<min(p.tries, 10), time.Minute)
	p.tries++
	limited, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	err := crammd5.Authenticate(limited, l.cfg.Node, l.cfg.Self, master, *l.cfg.Credential)
	switch {
	case err == nil:
		p.given, p.tries = master, 0
		return true, nil
	case ctx.Err() != nil:
		return false, ctx.Err()
	case errors.Is(err, crammd5.ErrRefused):
		return false, fmt.Errorf("link: %w; the credential must be one that the master %s has", err, master.Addr)
	}
	l.log.Warn("not authenticated yet; trying again", "master", master.String(), "error", err)
	return false, pause(ctx, mathrand.N(max(wait, 1)))
}
