#!/usr/bin/env bash
# Whole clusters in the simulator with fresh seeds, until the time is up:
#   scripts/sim-soak.sh [duration]   such as 90s, 20m or 8h; 10m when not given
# Then masters alone among agents, frameworks and operators, for as long again,
# each for eight hours of its own.
# Prints every failing seed with the smallest scenario that shows it, and how
# many seeds ran a second. A seed is replayed with
#   go test ./sim -v -run Cluster -seed=N
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
. "$root/scripts/lib.sh"
cd "$root"

need_go
go test ./sim -v -count=1 -timeout=0 -run '^TestSoak$' -for "${1:-10m}"
go test ./sim -v -count=1 -timeout=0 -run '^TestFleetSoak$' -fleet-time 8h -for "${1:-10m}"
