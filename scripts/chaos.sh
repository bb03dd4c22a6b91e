#!/usr/bin/env bash
# A demo cluster on the Docker engine under random faults: roles killed with
# SIGKILL, cut from the network and frozen, full disks, clock jumps, containers
# killed and removed, the engine restarted. Between faults `mesopool audit`
# compares what Marathon, the master, the agent and the engine think; after each
# one the cluster must settle in time. Cleans up after itself.
#
#   scripts/chaos.sh [--rounds N] [--seed N] [--only FAULT] [--cluster NAME] [--engine]
#
#   --rounds N      how many faults (12)
#   --seed N        the same faults again (random; it is printed)
#   --only FAULT    this one only, such as rolling or cut
#   --cluster NAME  the cluster's name (chaos)
#   --engine        restart the engine too; everything on it is hit, so only on
#                   a machine that is there for tests
#
# Needs root on the engine's machine: it enters the roles' network namespaces
# and sends signals to their processes.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
. "$root/scripts/lib.sh"
. "$root/scripts/cluster.sh"
cd "$root"

cluster=chaos rounds=12 seed=$RANDOM only="" engine=false settle=120

usage() { sed -n '2,/^set /p' "${BASH_SOURCE[0]}" | sed -n 's/^# \{0,1\}//p'; }

while [ $# -gt 0 ]; do
  case $1 in
    --rounds) rounds=${2:?--rounds needs a number} && shift ;;
    --seed) seed=${2:?--seed needs a number} && shift ;;
    --only) only=${2:?--only needs the name of a fault} && shift ;;
    --cluster) cluster=${2:?--cluster needs a name} && shift ;;
    --engine) engine=true ;;
    -h | --help) usage && exit 0 ;;
    *) fail "\"$1\" is no option of scripts/chaos.sh: --help lists them" ;;
  esac
  shift
done
RANDOM=$seed

pid_of() { docker inspect --format '{{.State.Pid}}' "$(role_container "$cluster" "$1")"; } # <role>

pick() { # <words...>
  local words=("$@")
  printf '%s' "${words[RANDOM % ${#words[@]}]}"
}

some_role() { pick agent master marathon; }

some_task() {
  local ids
  mapfile -t ids < <(docker ps -q --filter "label=$TASK_LABEL=$cluster" | sort)
  if [ ${#ids[@]} -gt 0 ]; then printf '%s' "${ids[RANDOM % ${#ids[@]}]}"; fi
}

# in_network runs a command in a role's network namespace.
in_network() { # <role> <command...>
  local role=$1
  shift
  nsenter --target "$(pid_of "$role")" --net "$@"
}

# ---- the faults: each says what it does, and ends what it began ------------

fault_kill() {
  local role
  role=$(some_role)
  echo "kill -9 of the $role"
  kill -9 "$(pid_of "$role")"
}

fault_kill_all() {
  local role
  echo "kill -9 of agent, master and Marathon at once"
  for role in agent master marathon; do kill -9 "$(pid_of "$role")" || true; done
}

fault_cut() {
  local role seconds=$((RANDOM % 25 + 5))
  role=$(some_role)
  echo "the $role is cut from the network for $seconds s"
  in_network "$role" ip link set eth0 down
  sleep "$seconds"
  in_network "$role" ip link set eth0 up
}

fault_freeze() {
  local role seconds=$((RANDOM % 25 + 5))
  role=$(some_role)
  echo "the $role stands still for $seconds s"
  docker pause "$(role_container "$cluster" "$role")" >/dev/null
  sleep "$seconds"
  docker unpause "$(role_container "$cluster" "$role")" >/dev/null
}

# A store that cannot write ends its role rather than let it go on without: here
# every write to a file fails, as on a full disk.
fault_disk() {
  local role seconds=$((RANDOM % 10 + 5))
  role=$(some_role)
  echo "the $role can write no file for $seconds s, as on a full disk"
  prlimit --pid "$(pid_of "$role")" --fsize=0:0
  sleep "$seconds"
  kill -9 "$(pid_of "$role")" 2>/dev/null || true # the limit ends with the process
}

fault_task_dies() {
  local id
  id=$(some_task)
  echo "a task's container is killed"
  [ -z "$id" ] || docker kill "$id" >/dev/null
}

fault_task_removed() {
  local id
  id=$(some_task)
  echo "a task's container is removed from outside"
  [ -z "$id" ] || docker rm -f "$id" >/dev/null
}

fault_scale() {
  local n=$((RANDOM % 6 + 1))
  echo "the app is scaled to $n, and the master is killed meanwhile"
  api PUT "/v2/apps/hello?force=true" "{\"instances\": $n}" >/dev/null || true
  kill -9 "$(pid_of master)"
}

fault_deploy() {
  echo "the app gets a new version, and Marathon is killed meanwhile"
  api PUT "/v2/apps/hello?force=true" "{\"env\": {\"ROUND\": \"$RANDOM\"}}" >/dev/null || true
  sleep "0.$((RANDOM % 9))"
  kill -9 "$(pid_of marathon)"
}

# Six instances are replaced one by one, which takes some seconds.
fault_rolling() {
  rolled=$RANDOM
  local after="$((RANDOM % 10)).$((RANDOM % 10))"
  echo "six instances are replaced one by one, and after $after s Marathon is killed"
  api PUT "/v2/apps/hello?force=true" "{\"instances\": 6, \"env\": {\"ROUND\": \"$rolled\"},
    \"upgradeStrategy\": {\"minimumHealthCapacity\": 0.8, \"maximumOverCapacity\": 0.2}}" >/dev/null
  sleep "$after"
  kill -9 "$(pid_of marathon)"
}

# check_rolling: beside what the audit says, the engine has the six new
# containers and no other, and no deployment is left.
check_rolling() {
  local ids id left
  left=$(api GET /v2/deployments)
  [ "$left" = "[]" ] || { echo "deployments are left: $left" && return 1; }
  mapfile -t ids < <(docker ps -q --filter "label=$TASK_LABEL=$cluster")
  [ ${#ids[@]} = 6 ] || { echo "the engine runs ${#ids[@]} containers of the cluster's tasks, not 6" && return 1; }
  for id in "${ids[@]}"; do
    docker inspect --format '{{.Config.Env}}' "$id" | grep -qw "ROUND=$rolled" || { echo "the container $id is of an earlier version" && return 1; }
  done
}

fault_clock() {
  local by=$((RANDOM % 2 * 240 - 120))
  echo "the clock jumps by $by s, and back"
  date -s "@$(($(date +%s) + by))" >/dev/null
  sleep 5
  date -s "@$(($(date +%s) - by))" >/dev/null
}

fault_engine() {
  echo "the engine is killed and started again"
  local pid
  pid=$(cat /var/run/docker.pid)
  kill -9 "$pid"
  sleep 3
  rm -f /var/run/docker.pid
  bash scripts/engine.sh >/dev/null
}

api() { # <method> <path> [JSON or @file]
  curl --noproxy '*' -fsS --max-time 20 -X "$1" -H 'Content-Type: application/json' ${3:+-d "$3"} "http://$MARATHON$2"
}

# ---- the run ---------------------------------------------------------------

# faults lists what can be done to this machine.
faults() {
  if [ -n "$only" ]; then
    printf '%s\n' "$only"
    return
  fi
  printf '%s\n' kill kill kill_all cut freeze disk task_dies task_removed scale deploy rolling
  if date -s "@$(date +%s)" >/dev/null 2>&1; then echo clock; else note "The clock of this machine cannot be set: no clock jumps."; fi
  if $engine; then echo engine; fi
}

audit() { dist/chaos-mesopool audit --cluster "$cluster" --master "$MESOS_MASTER" --marathon "$MARATHON" "$@"; }

explain() {
  local role
  docker ps -a --filter "name=$cluster" --format '  {{.Names}}  {{.Status}}' | head -20
  for role in agent master marathon; do
    say "  the last lines of the $role:"
    docker logs --tail 12 "$(role_container "$cluster" "$role")" 2>&1 | sed 's/^/    /' || true
  done
}

cleanup() { ./start.sh "$cluster" --down >/dev/null 2>&1 || true; }

begin() {
  is_root || fail "scripts/chaos.sh needs root on the engine's machine, to signal the roles and to enter their networks"
  for tool in nsenter prlimit ip curl; do have "$tool" || fail "scripts/chaos.sh needs $tool"; done
  cleanup
  ./start.sh "$cluster" --no-open >/dev/null
  eval "$(bash env.sh "$cluster")"
  go build -o dist/chaos-mesopool ./cmd/mesopool
  api POST /v2/apps @compose/tasks/hello.json >/dev/null
  api PUT '/v2/apps/hello?force=true' '{"instances": 4}' >/dev/null
  audit --wait 60s || fail "the cluster did not settle before the first fault"
}

# settled says whether the cluster is well again after a fault.
settled() { # <fault>
  audit --wait "${settle}s" | sed 's/^/    /' || return 1
  if declare -F "check_$1" >/dev/null; then "check_$1"; fi
}

if [ -n "$only" ] && ! declare -F "fault_$only" >/dev/null; then
  fail "there is no fault \"$only\", but: $(declare -F | sed -n 's/.* fault_//p' | xargs)"
fi
trap cleanup EXIT
say "Faults from seed $seed."
begin
mapfile -t known < <(faults)
for round in $(seq "$rounds"); do
  fault=$(pick "${known[@]}")
  printf '%2d  ' "$round"
  "fault_$fault"
  if ! settled "$fault"; then
    explain
    fail "the cluster did not settle after fault $round of seed $seed ($fault): scripts/chaos.sh --seed $seed --rounds $round does it again"
  fi
done
say "$rounds faults, and the cluster settled after each."
