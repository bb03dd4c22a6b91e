#!/usr/bin/env bash
# Prints the addresses of a cluster as exports, for eval:
#
#   eval "$(bash env.sh mesos)"
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$root/scripts/lib.sh"
. "$root/scripts/cluster.sh"

cluster=${1:-mesos}
need_cluster_name "$cluster"
if sim_running "$cluster"; then
  read -r MASTER MARATHON <"$(sim_dir "$cluster")/ports"
  CONSUL=""
elif ! have docker || ! read_ports "$cluster" 2>/dev/null; then
  fail "there is no cluster \"$cluster\" here: ./start.sh $cluster makes one"
fi
cat <<EOF
export COMPOSE_PROJECT_NAME=$cluster
export MESOS_MASTER=$MASTER
export MARATHON=$MARATHON
export CONSUL=$CONSUL
EOF
