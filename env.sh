#!/usr/bin/env bash
# Prints the addresses of a cluster as exports, for eval:
#
#   eval "$(bash env.sh mesos)"
#
# With --triton=PROFILE, those of a cluster that start.sh --triton=PROFILE made.
# For a team (start.sh --endpoint) the docker command, too, is pointed at what
# the team sees. With --unset, all that is taken back:
#
#   eval "$(bash env.sh mesos --unset)"
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$root/scripts/lib.sh"
. "$root/scripts/cluster.sh"

usage() { fail "env.sh takes the name of a cluster, --triton=PROFILE and --unset; \"$1\" is none of these"; }

cluster="" unset=false profile=""
for word in "$@"; do
  case $word in
    --unset) unset=true ;;
    --triton=*) profile=${word#*=} ;;
    -*) usage "$word" ;;
    *) if [ -n "$cluster" ]; then usage "$word"; fi; cluster=$word ;;
  esac
done
: "${cluster:=mesos}"
need_cluster_name "$cluster"
view=${DOCKER_CERT_PATH:-}
leave_team_view

if $unset; then
  echo unset COMPOSE_PROJECT_NAME MESOS_MASTER MARATHON CONSUL
  if is_team_view "$view"; then
    echo unset DOCKER_HOST DOCKER_CERT_PATH DOCKER_TLS_VERIFY
    save_engine
  fi
  exit
fi
find_datacenter "$profile"
if ! $triton && sim_running "$cluster"; then
  read -r MASTER MARATHON <"$(sim_dir "$cluster")/ports"
  CONSUL=""
elif ! have docker || ! read_ports "$cluster" 2>/dev/null; then
  fail "there is no cluster \"$cluster\" here: ./start.sh $cluster makes one"
fi
cat <<END
export COMPOSE_PROJECT_NAME=$cluster
export MESOS_MASTER=$MASTER
export MARATHON=$MARATHON
export CONSUL=$CONSUL
END
if ! $triton && ! sim_running "$cluster" && is_team "$cluster"; then team_env "$cluster"; fi
