# Functions that start.sh, env.sh and the scripts share. Source it with $root
# set to the project's folder; it does nothing by itself. Written for bash 3.2
# and later, which macOS still ships.
# shellcheck shell=bash disable=SC2154,SC2034

# ---- words to people -------------------------------------------------------

say() { printf '%s\n' "$*"; }
note() { printf '%s\n' "$*" >&2; }

# fail says in one sentence what was wrong and what to do, and ends the script.
fail() {
  printf 'mesopool: %s\n' "$*" >&2
  exit 1
}

# ---- small tools -----------------------------------------------------------

have() { command -v "$1" >/dev/null 2>&1; }

cache_dir() { printf '%s\n' "${XDG_CACHE_HOME:-$HOME/.cache}/mesopool"; }
state_dir() { printf '%s\n' "${XDG_STATE_HOME:-$HOME/.local/state}/mesopool"; }

# digest hashes standard input to a short name.
digest() {
  if have sha256sum; then sha256sum; else shasum -a 256; fi | cut -c1-16
}

# lock takes a lock that this process holds until unlock or its end; one whose
# holder died is taken over.
lock() { # <path>
  local holder nobody=0
  mkdir -p "$(dirname "$1")"
  until mkdir "$1" 2>/dev/null; do
    holder=$(cat "$1/pid" 2>/dev/null || true)
    if [ -z "$holder" ]; then nobody=$((nobody + 1)); else nobody=0; fi
    if [ "$nobody" -gt 5 ] || { [ -n "$holder" ] && ! kill -0 "$holder" 2>/dev/null; }; then
      rm -rf "$1"
      continue
    fi
    sleep 1
  done
  echo $$ >"$1/pid"
}

unlock() { rm -rf "$1"; }

# bounded runs a command for at most so many seconds.
bounded() { # <seconds> <command...>
  local seconds=$1 pid
  shift
  "$@" &
  pid=$!
  while kill -0 "$pid" 2>/dev/null; do
    if [ "$seconds" -le 0 ]; then
      kill "$pid" 2>/dev/null || true
      wait "$pid" 2>/dev/null || true
      return 124
    fi
    seconds=$((seconds - 1))
    sleep 1
  done
  wait "$pid"
}

# answers asks an HTTP address of this machine for a success.
answers() { curl --noproxy '*' -fsS -o /dev/null --max-time 3 "$1" 2>/dev/null; }

# port_taken says whether something listens on a port of the loopback.
port_taken() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

is_root() { [ "$(id -u)" = 0 ]; }
is_debian() { [ -f /etc/debian_version ] && have apt-get; }

# apt_install installs those of the packages that this release has.
apt_install() { # <package...>
  local package list=""
  DEBIAN_FRONTEND=noninteractive apt-get update -qq >&2 || fail "\"apt-get update\" did not work: the messages above say why"
  for package in "$@"; do
    if apt-cache show "$package" >/dev/null 2>&1; then list="$list $package"; fi
  done
  # shellcheck disable=SC2086 # a list of words
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $list >&2 ||
    fail "\"apt-get install$list\" did not work: the messages above say why"
}

need_curl() {
  if have curl; then return; fi
  if is_debian && is_root; then
    say "Installing curl from the distribution."
    apt_install curl
  fi
  have curl || fail "\"curl\" is missing here: install it from your system's packages"
}

# ---- Go and Consul ---------------------------------------------------------

# find_go puts Go into the PATH if it is in its usual place only.
find_go() {
  if ! have go && [ -x /usr/local/go/bin/go ]; then PATH=$PATH:/usr/local/go/bin; fi
  have go
}

need_go() {
  find_go || fail "building needs the Go toolchain and there is no \"go\" in the PATH: install Go 1.26 or later (https://go.dev/dl), or put a built binary at dist/mesopool"
}

consul_version() { sed -n 's|.*github.com/hashicorp/consul v\([0-9.]*\).*|\1|p' "$root/tools/consul/go.mod" | head -1; }

# consul_path names the cached binary; what it is built from is in the name.
consul_path() { # <os> <arch>
  local sum
  sum=$(cat "$root/tools/consul/go.mod" "$root/tools/consul/go.sum" | digest)
  printf '%s/consul-%s-%s-%s-%s\n' "$(cache_dir)" "$(consul_version)" "$1" "$2" "$sum"
}

# ---- the Docker engine -----------------------------------------------------

engine_answers() { have docker && docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }

# endpoint is the address of the engine that the docker command talks to.
endpoint() {
  local host=${DOCKER_HOST:-}
  if [ -z "$host" ]; then host=$(docker context inspect --format '{{.Endpoints.docker.Host}}' 2>/dev/null || true); fi
  printf '%s\n' "${host:-unix:///var/run/docker.sock}"
}

# need_engine makes sure that a Docker engine answers. Where there is none, on
# Debian and Ubuntu as root, it installs and starts one.
need_engine() {
  if engine_answers; then return; fi
  case ${DOCKER_HOST:-unix:///var/run/docker.sock} in
    unix:///var/run/docker.sock | unix:///run/docker.sock) ;;
    *) fail "no Docker engine answers at DOCKER_HOST=$DOCKER_HOST ($(engine_complaint)): correct it, or unset it to use this machine's own engine" ;;
  esac
  if [[ $(engine_complaint) == *"permission denied"* ]]; then
    fail "your user may not use the Docker engine at /var/run/docker.sock: add it to the group docker (sudo usermod -aG docker $(id -un), then log in again), or use --sim, which needs no engine"
  fi
  if ! is_debian || ! is_root; then
    fail "no Docker engine answers here: $(engine_advice); or use --sim, which needs none"
  fi
  if ! have docker || ! have dockerd; then
    say "There is no Docker engine here: installing docker.io and a Compose tool from the distribution."
    apt_install docker.io docker-cli ca-certificates iptables
  fi
  start_engine
}

engine_complaint() {
  if ! have docker; then
    echo 'there is no "docker" command'
  else
    { docker version 2>&1 >/dev/null || true; } | grep -v '^[[:space:]]*$' | tail -1
  fi
}

engine_advice() {
  case $(uname -s) in
    Darwin) echo "install Docker Desktop (https://docs.docker.com/desktop) and start it" ;;
    *) if is_debian; then
      echo "run this script as root, and it installs docker.io; or start the engine that you have (sudo systemctl start docker)"
    else
      echo "install Docker (https://docs.docker.com/engine/install) with its Compose plugin and start it"
    fi ;;
  esac
}

# start_engine starts the installed engine, by systemd or by itself.
start_engine() {
  local log=/var/log/mesopool-dockerd.log i
  if [ -d /run/systemd/system ]; then
    say "Starting the Docker engine."
    systemctl start docker >&2 || true
    log="the journal (journalctl -u docker)"
  else
    say "Starting the Docker engine in the background; its log is $log."
    setsid dockerd >>"$log" 2>&1 </dev/null &
  fi
  for ((i = 0; i < 60; i++)); do
    if engine_answers; then return; fi
    sleep 1
  done
  if [ -f "$log" ]; then tail -5 "$log" >&2; fi
  fail "the Docker engine does not answer after a minute: the reason is in $log"
}

# find_compose sets COMPOSE to the Compose command, or fails to.
find_compose() {
  if docker compose version >/dev/null 2>&1; then
    COMPOSE="docker compose"
  elif have docker-compose && docker-compose version >/dev/null 2>&1; then
    COMPOSE="docker-compose"
  else
    return 1
  fi
}

need_compose() {
  if find_compose; then return; fi
  if is_debian && is_root; then
    say "There is no Compose tool here: installing it from the distribution."
    if apt-cache show docker-compose-v2 >/dev/null 2>&1; then
      apt_install docker-compose-v2
    else
      apt_install docker-compose
    fi
  fi
  find_compose || fail "there is neither \"docker compose\" nor \"docker-compose\" here: install Docker's Compose plugin (https://docs.docker.com/compose/install), or use --sim, which needs neither"
}

engine_platform() { docker version --format '{{.Server.Os}}/{{.Server.Arch}}'; }

# ---- clusters --------------------------------------------------------------

# The label on the containers of the roles, and the label on those of tasks.
ROLE_LABEL=io.mesopool.role.cluster
TASK_LABEL=mesopool.cluster

need_cluster_name() { # <name>
  case $1 in
    [!a-z0-9]* | *[!a-z0-9-]* | "")
      fail "\"$1\" is no name for a cluster: use small letters, digits and dashes, such as \"teama\"" ;;
  esac
  if [ ${#1} -gt 30 ]; then fail "the name \"$1\" has ${#1} characters and a cluster's may have 30: use a shorter one"; fi
}

role_containers() { docker ps -aq --filter "label=$ROLE_LABEL=$1"; }
task_containers() { docker ps -aq --filter "label=$TASK_LABEL=$1"; }

# role_container is the container of one role, or empty.
role_container() { # <cluster> <role>
  docker ps -aq --filter "label=$ROLE_LABEL=$1" --filter "label=com.docker.compose.service=$2" | head -1
}

# cluster_ports prints the address and the three ports of a cluster on this
# engine, "<address> <master> <marathon> <consul>"; nothing if there is none.
cluster_ports() { # <cluster>
  local master
  master=$(role_container "$1" master)
  if [ -z "$master" ]; then return; fi
  docker inspect --format '{{index .Config.Labels "io.mesopool.publish"}} {{index .Config.Labels "io.mesopool.ports"}}' "$master"
}

# sim_dir is where a simulated cluster keeps its state, its log and its ports.
sim_dir() { printf '%s/sim/%s\n' "$(state_dir)" "$1"; }

sim_running() { # <cluster>
  local pid
  pid=$(cat "$(sim_dir "$1")/pid" 2>/dev/null || true)
  [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null
}
