// Package uuid makes random UUIDs (RFC 4122, version 4). Cores get them handed
// in; only shells call it.
package uuid

import (
	"crypto/rand"

	"github.com/mesopool/mesopool/task"
)

// New returns a random UUID.
func New() task.UUID {
	var u task.UUID
	rand.Read(u[:])
	u[6], u[8] = u[6]&0x0f|0x40, u[8]&0x3f|0x80
	return u
}
