# Further data centers of a cluster: one agent each, on this engine, for a
# Triton-style endpoint elsewhere. Sourced by cluster.sh.
# shellcheck shell=bash disable=SC2154,SC2034

# The label that says of which data center an agent is: its folder.
PLACE_LABEL=io.mesopool.place

# find_place sets place_dir to the folder of a data center's certificates: one
# that sdc-docker-setup.sh made (with env.sh), or that of a profile of the triton
# command (~/.triton/docker/<profile>, with setup.json).
find_place() { # <folder or profile>
  local dir
  for dir in "$1" "$HOME/.triton/docker/$1" "$HOME/.sdc/docker/$1"; do
    if [ -f "$dir/env.sh" ] || [ -f "$dir/setup.json" ]; then
      place_dir=$(cd "$dir" && pwd)
      return
    fi
  done
  fail "\"$1\" is no data center: name a folder with ca.pem, cert.pem, key.pem and env.sh, as sdc-docker-setup.sh makes it, or a profile of the triton command (\"triton profile docker-setup\" prepares it)"
}

# read_place sets place_host, place_url and place_account from place_dir.
read_place() {
  local file
  for file in ca.pem cert.pem key.pem; do
    if [ ! -r "$place_dir/$file" ]; then fail "there is no readable $place_dir/$file: the data center's tools make it"; fi
  done
  if [ -f "$place_dir/env.sh" ]; then
    read -r place_host place_url place_account <<VALUES
$(unset DOCKER_HOST SDC_URL SDC_ACCOUNT TRITON_URL TRITON_ACCOUNT && . "$place_dir/env.sh" >/dev/null 2>&1 &&
      echo "${DOCKER_HOST:--} ${TRITON_URL:-${SDC_URL:--}} ${TRITON_ACCOUNT:-${SDC_ACCOUNT:--}}")
VALUES
  else
    place_host=$(sed -n 's/.*"DOCKER_HOST": *"\([^"]*\)".*/\1/p' "$place_dir/setup.json" | head -1)
    place_url=- place_account=-
  fi
  case ${place_host:--} in
    tcp://*) ;;
    *) fail "$place_dir does not say where the data center's Docker endpoint is: its env.sh must export DOCKER_HOST=tcp://…:2376" ;;
  esac
}

# place_docker is the docker command with a data center's view.
place_docker() { DOCKER_HOST=$place_host DOCKER_TLS_VERIFY=1 DOCKER_CERT_PATH=$place_dir docker "$@"; }

# place_agents lists the cluster's agents for further data centers.
place_agents() { docker ps -aq --filter "label=$ROLE_LABEL=$1" --filter "label=$PLACE_LABEL"; } # <cluster>

# remove_places removes the cluster's further agents, each with its tasks.
remove_places() { # <cluster>
  local id
  for id in $(place_agents "$1"); do remove_place "$1" "$id"; done
}

remove_place() { # <cluster> <container>
  local ids i name
  name=$(docker inspect --format '{{index .Config.Labels "io.mesopool.agent"}}' "$2")
  place_dir=$(docker inspect --format "{{index .Config.Labels \"$PLACE_LABEL\"}}" "$2")
  docker rm -f -v "$2" >/dev/null
  if ! (read_place) >/dev/null 2>&1; then
    note "The certificates in $place_dir are gone, so the tasks of the agent $name there were left."
    return
  fi
  read_place
  for ((i = 0; i < 20; i++)); do
    if ! ids=$(place_docker ps -aq --filter "label=$TASK_LABEL=$1" --filter "label=mesopool.agent=$name" 2>/dev/null); then
      note "The data center at $place_host does not answer, so the tasks of the agent $name there were left."
      return
    fi
    if [ -z "$ids" ]; then return; fi
    # shellcheck disable=SC2086 # a list of words
    place_docker rm -f $ids >/dev/null 2>&1 || sleep 0.5 # what is being provisioned cannot be removed yet
  done
}
