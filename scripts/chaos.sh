#!/usr/bin/env bash
# A demo cluster on the Docker engine under random faults: roles killed with
# SIGKILL, cut from the network and frozen, full disks, clock jumps, containers
# killed and removed, the engine restarted. Between faults `mesopool audit`
# compares what Marathon, the master, the agent and the engine think; after each
# one the cluster must settle in time. Cleans up after itself.
#
#   scripts/chaos.sh [--rounds N] [--seed N] [--engine]
#
#   --rounds N   how many faults (12)
#   --seed N     the same faults again (random; it is printed)
#   --engine     restart the engine too; everything on it is hit, so only on a
#                machine that is there for tests
#
# Needs root on the engine's machine: it enters the roles' network namespaces
# and sends signals to their processes.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
. "$root/scripts/lib.sh"
. "$root/scripts/cluster.sh"
cd "$root"

cluster=chaos rounds=12 seed=$RANDOM engine=false settle=120

usage() { sed -n '2,/^set /p' "${BASH_SOURCE[0]}" | sed -n 's/^# \{0,1\}//p'; }

while [ $# -gt 0 ]; do
  case $1 in
    --rounds) rounds=${2:?--rounds needs a number} && shift ;;
    --seed) seed=${2:?--seed needs a number} && shift ;;
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
  printf '%s\n' kill kill kill_all cut freeze disk task_dies task_removed scale deploy
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

trap cleanup EXIT
say "Faults from seed $seed."
begin
mapfile -t known < <(faults)
for round in $(seq "$rounds"); do
  fault=$(pick "${known[@]}")
  printf '%2d  ' "$round"
  "fault_$fault"
  if ! audit --wait "${settle}s" | sed 's/^/    /'; then
    explain
    fail "the cluster did not settle after fault $round of seed $seed ($fault): scripts/chaos.sh --seed $seed --rounds $round does it again"
  fi
done
say "$rounds faults, and the cluster settled after each."
