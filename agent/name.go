package agent

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"github.com/mesopool/mesopool/task"
)

// ContainerName is the name of a task's container: lower-case, at most 62
// characters, the same whenever it is asked for, and different for every task
// of every cluster: <cluster>-<task name>-<hash>.
func ContainerName(cluster string, key task.Key, taskName string) string {
	sum := sha256.Sum256([]byte(cluster + "\x00" + key.Framework + "\x00" + key.ID))
	parts := []string{slug(cluster, 30), slug(taskName, 18), hex.EncodeToString(sum[:6])}
	if parts[1] == "" {
		parts = []string{parts[0], parts[2]}
	}
	return strings.Trim(strings.Join(parts, "-"), "-")
}

// slug keeps lower-case letters, digits and single dashes.
func slug(text string, most int) string {
	var b strings.Builder
	for _, r := range strings.ToLower(text) {
		ok := r >= 'a' && r <= 'z' || r >= '0' && r <= '9'
		switch {
		case b.Len() >= most:
			return strings.Trim(b.String(), "-")
		case ok:
			b.WriteRune(r)
		case b.Len() > 0 && !strings.HasSuffix(b.String(), "-"):
			b.WriteByte('-')
		}
	}
	return strings.Trim(b.String(), "-")
}
