#!/usr/bin/env bash
# Brings up a whole Mesopool cluster on a Docker engine: master, virtual agent,
# Marathon and Consul. Running it again is harmless. ./start.sh --help
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$root/scripts/lib.sh"
. "$root/scripts/cluster.sh"
. "$root/scripts/images.sh"
. "$root/scripts/sim.sh"

usage() {
  cat <<'EOF'
usage: ./start.sh [cluster] [--no-open] [--endpoint | --sim | --triton[=PROFILE]]
       ./start.sh [cluster] [--triton=PROFILE] --status
       ./start.sh [cluster] [--triton=PROFILE] --down

Brings up a cluster, named "mesos" unless you say otherwise: a Mesos master, a
virtual agent that runs tasks as containers of the Docker engine, Marathon and
Consul. Several clusters can live side by side on one engine.

  --no-open   do not open the browser
  --endpoint  the cluster of a team: it has no access to the engine but through a
              Triton-style endpoint, which shows it only what is its own
  --triton    the cluster itself is on a Triton data center (docs/triton.md): PROFILE is
              one of the triton command, or a folder of sdc-docker-setup.sh; without
              it, the data center that the docker command talks to
  --sim       no Docker: one process with a simulated data center
  --status    say what runs and where
  --down      remove the cluster with its tasks, its state and its network
  --help      this text

The engine is the one that the docker command talks to (DOCKER_HOST,
DOCKER_TLS_VERIFY, DOCKER_CERT_PATH). Addresses of a cluster, for your shell:

  eval "$(bash env.sh mesos)"
EOF
}

parse() {
  cluster="" action=start open=true sim=false team=false on_triton=false profile=""
  while [ $# -gt 0 ]; do
    case $1 in
      --down) action=down ;;
      --status) action=status ;;
      --no-open) open=false ;;
      --sim) sim=true ;;
      --endpoint) team=true ;;
      --triton) on_triton=true ;;
      --triton=*) on_triton=true profile=${1#*=} ;;
      -h | --help) usage && exit 0 ;;
      -*) fail "\"$1\" is no option of start.sh: ./start.sh --help lists them" ;;
      *)
        if [ -n "$cluster" ]; then fail "one cluster at a time: \"$cluster\" or \"$1\"?"; fi
        need_cluster_name "$1"
        cluster=$1
        ;;
    esac
    shift
  done
  : "${cluster:=mesos}"
  if $team && $sim; then fail "--endpoint and --sim do not go together: a simulated cluster has no engine to share"; fi
  if $on_triton && { $team || $sim; }; then fail "--triton goes with neither --endpoint nor --sim: it is the account's cluster on a data center"; fi
}

# ---- start -----------------------------------------------------------------

start() {
  need_curl
  need_engine
  need_compose
  if sim_running "$cluster"; then
    fail "the cluster \"$cluster\" runs as a simulation: ./start.sh $cluster --down ends it, or choose another name"
  fi
  refuse_strangers "$cluster"
  local fresh=true
  if [ -n "$(role_container "$cluster" master)" ]; then fresh=false; fi
  choose_mode
  engine_settings
  ensure_mesopool_image
  if $team && ! enter_team "$cluster"; then
    undo_if "$fresh"
    fail "the team \"$cluster\" could not be set up at the endpoint: the messages above say why"
  fi
  start_roles "$fresh"
  ensure_sample_images
  wait_for_roles "$fresh"
  start_consul
  show_next_steps
}

# start_on_triton does without an engine: the data center has all that there is.
start_on_triton() {
  local fresh=true
  need_curl
  if [ -n "$(role_container "$cluster" master)" ]; then fresh=false; fi
  say "Starting the cluster \"$cluster\" on the data center at $DOCKER_HOST."
  if ! triton_roles; then
    undo_if "$fresh"
    fail "the cluster's containers did not start: the messages above say why"
  fi
  triton_ports "$cluster"
  wait_for_roles "$fresh"
  wait_until Consul consul false 90 consul_leads
  show_next_steps
}

# choose_mode: a cluster stays what it is, a team or not.
choose_mode() {
  if is_team "$cluster"; then
    team=true
  elif $team && cluster_exists "$cluster"; then
    fail "the cluster \"$cluster\" runs on the engine itself: ./start.sh $cluster --down removes it, or choose another name"
  fi
  if $team; then need_team_name "$cluster"; fi
}

# start_roles brings up everything but Consul, which may have to be built. The
# ports are chosen under a lock: clusters started at once must not choose alike.
start_roles() { # <fresh>
  local guard
  guard="$(cache_dir)/ports.lock"
  lock "$guard"
  trap 'unlock "'"$guard"'"' EXIT
  choose_ports "$cluster"
  say "Starting the cluster \"$cluster\"."
  fill_certs "$MESOPOOL_IMAGE" "${certs_from:-${DOCKER_CERT_PATH:-$HOME/.docker}}"
  if ! compose up -d master agent marathon; then
    undo_if "$1"
    fail "the cluster's containers did not start: the messages above say why"
  fi
  unlock "$guard"
  trap - EXIT
}

wait_for_roles() { # <fresh>
  wait_until Mesos master "$1" 90 answers "http://$MASTER/health"
  wait_until "the agent" agent "$1" 90 agent_registered
  wait_until Marathon marathon "$1" 90 answers "http://$MARATHON/v2/info"
}

agent_registered() {
  curl --noproxy '*' -fsS --max-time 3 "http://$MASTER/slaves" 2>/dev/null | grep -q '"active": *true'
}

consul_leads() {
  curl --noproxy '*' -fsS --max-time 3 "http://$CONSUL/v1/status/leader" 2>/dev/null | grep -q ':'
}

# start_consul comes last: the cluster works without it, and catches up.
start_consul() {
  if ! ensure_consul_image "$cluster"; then
    fail "there is no Consul: its image could not be pulled and building it did not work (the messages above say why); the cluster itself runs, at http://$MASTER and http://$MARATHON, and ./start.sh $cluster tries again"
  fi
  compose up -d consul || fail "Consul's container did not start: the messages above say why"
  wait_until Consul consul false 90 consul_leads
}

# wait_until shows progress until a condition holds. Where it does not in time,
# the last lines that the role wrote are shown.
wait_until() { # <name> <role> <fresh> <seconds> <command...>
  local name=$1 role=$2 fresh=$3 seconds=$4 begin=$SECONDS
  shift 4
  printf '  waiting for %s ' "$name"
  until "$@"; do
    if [ $((SECONDS - begin)) -ge "$seconds" ]; then
      printf '\n'
      docker logs --tail 15 "$(role_container "$cluster" "$role")" >&2 || true
      undo_if "$fresh"
      fail "$name does not answer after $seconds seconds: above are the last lines that it wrote"
    fi
    printf '.'
    sleep 0.5
  done
  printf ' ok\n'
}

# undo_if takes a cluster away again that this run began and could not finish.
undo_if() { # <fresh>
  if $1; then
    note "Taking away what was started."
    remove_cluster "$cluster" || true
  fi
}

show_next_steps() {
  cat <<EOF

The cluster "$cluster" is running.

  Mesos     http://$MASTER
  Marathon  http://$MARATHON
  Consul    http://$CONSUL

Next steps, to copy:

  eval "\$(bash env.sh $cluster)"
  curl -H 'Content-Type: application/json' -d @compose/tasks/hello.json "http://\$MARATHON/v2/apps"
  curl "http://\$MARATHON/v2/apps/hello/tasks"
  curl -X PUT -H 'Content-Type: application/json' -d '{"instances": 5}' "http://\$MARATHON/v2/apps/hello"
  docker ps --filter label=$TASK_LABEL=$cluster
EOF
  if $team; then team_steps; fi
  cat <<EOF

  compose/tasks has more: nginx and Couchbase from a registry, and a NATS cluster
  with a load generator (sample-nats.json, sample-load.json) that needs none.
  ./start.sh $cluster --down removes all of it.
EOF
  open_browser "http://$MARATHON" "http://$MASTER"
}

# team_steps: a team's containers are seen through the endpoint only.
team_steps() {
  cat <<EOF

  env.sh also points the docker command at what the team sees of the engine, which
  is what is its own. Back to the engine:

  eval "\$(bash env.sh $cluster --unset)"
EOF
}

# open_browser opens pages where a person sits in front of a desktop.
open_browser() { # <url...>
  local url opener=""
  if ! $open || [ ! -t 1 ] || [ -n "${SSH_CONNECTION:-}" ]; then return; fi
  if [ "$(uname -s)" = Darwin ]; then
    opener=open
  elif [ -n "${DISPLAY:-}${WAYLAND_DISPLAY:-}" ] && have xdg-open; then
    opener=xdg-open
  fi
  if [ -z "$opener" ]; then return; fi
  for url in "$@"; do "$opener" "$url" >/dev/null 2>&1 || true; done
}

# ---- down and status -------------------------------------------------------

down() {
  if [ -d "$(sim_dir "$cluster")" ]; then
    sim_down "$cluster"
    if ! engine_answers || ! cluster_exists "$cluster"; then return; fi
  fi
  if ! engine_answers; then
    fail "no Docker engine answers ($(engine_complaint)), so there is no telling what runs: start it and try again"
  fi
  if ! cluster_exists "$cluster"; then
    say "There is no cluster \"$cluster\" on this engine; nothing to remove."
    return
  fi
  remove_cluster "$cluster"
  say "The cluster \"$cluster\" is gone, with its tasks, its state and its network."
}

status() {
  if sim_running "$cluster"; then
    sim_status "$cluster"
    return
  fi
  engine_answers || fail "no Docker engine answers: $(engine_complaint)"
  if ! read_ports "$cluster"; then
    fail "there is no cluster \"$cluster\" on this engine: ./start.sh $cluster makes one"
  fi
  say "Cluster \"$cluster\":"
  role_status master "$MASTER" "http://$MASTER/health"
  role_status agent "" ""
  role_status marathon "$MARATHON" "http://$MARATHON/ping"
  role_status consul "$CONSUL" "http://$CONSUL/v1/status/leader"
  if ! $triton && is_team "$cluster"; then
    role_status endpoint "" ""
    say "  tasks: $(team_docker "$cluster" ps -q | wc -l | tr -d ' ') running containers, seen through the endpoint at $(endpoint_address)"
  else
    say "  tasks: $(docker ps -q --filter "label=$TASK_LABEL=$cluster" | wc -l | tr -d ' ') running containers"
  fi
}

role_status() { # <role> <address> <url>
  local id state=missing word=""
  id=$(role_container "$cluster" "$1")
  if [ "$1" = endpoint ]; then id=$(endpoint_container); fi
  if [ -n "$id" ]; then state=$(docker inspect --format '{{if .State.Running}}running{{else}}stopped{{end}}' "$id"); fi
  if [ -n "$3" ]; then
    if answers "$3"; then word="answers at http://$2"; else word="does not answer at http://$2"; fi
  fi
  printf '  %-9s %-10s %s\n' "$1" "$state" "$word"
}

parse "$@"
leave_team_view
if ! $sim; then find_datacenter "$profile"; fi
if $on_triton; then need_datacenter; fi
case $action in
  start) if $sim; then sim_start "$cluster"; elif $triton; then start_on_triton; else start; fi ;;
  down) down ;;
  status) status ;;
esac
