#!/usr/bin/env bash
# Starts one more agent of a cluster for each further data center: a Triton, or
# another Triton-style endpoint. Running it again is harmless.
#
#   scripts/start-agents.sh CLUSTER PLACE[=REGION/ZONE]... [--domains]
#   scripts/start-agents.sh CLUSTER --remove
#
# PLACE is a profile of the triton command, or a folder as sdc-docker-setup.sh
# makes it: ca.pem, cert.pem, key.pem, and env.sh that exports DOCKER_HOST. With
# TRITON_URL and TRITON_ACCOUNT in env.sh, and the account's SSH key as "id"
# beside it, the agent uses CloudAPI too.
#
# Region and zone are in the agent's attributes, to constrain apps by; unless they
# are given they are read from the endpoint's name (us-east-1.docker.example.com
# is zone us-east-1 of region us-east). --domains has them in the agent's domain
# as well, which only masters with a domain of their own take: not this one.
#
# Tasks get public addresses there, since no network joins data centers;
# MESOPOOL_PLACE_PUBLISH=false leaves them on their account's own network.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
. "$root/scripts/lib.sh"
. "$root/scripts/cluster.sh"
. "$root/scripts/images.sh"

parse() {
  cluster="" places="" domains=false remove=false
  while [ $# -gt 0 ]; do
    case $1 in
      --domains) domains=true ;;
      --remove) remove=true ;;
      -*) fail "\"$1\" is no option of scripts/start-agents.sh; it has --domains and --remove" ;;
      *) if [ -z "$cluster" ]; then cluster=$1; else places="$places$1
"; fi ;;
    esac
    shift
  done
  if [ -z "$cluster" ] || { [ -z "$places" ] && ! $remove; }; then
    fail "scripts/start-agents.sh takes the name of a cluster, and data centers: scripts/start-agents.sh mesos us-east-1"
  fi
  need_cluster_name "$cluster"
}

# locate sets region and zone of a place.
locate() { # <given> <name>
  local host
  region=${1%%/*} zone=${1#*/}
  if [ -n "$1" ]; then
    case $1 in
      */*) return ;;
      *) fail "\"$1\" is no place: give region and zone, such as us-east/us-east-1" ;;
    esac
  fi
  host=${place_host#tcp://} zone=$2
  case ${host%%[:/]*} in
    *[!0-9.]*.*) zone=${host%%.*} ;;
  esac
  region=$(printf '%s\n' "$zone" | sed 's/-[0-9][0-9]*[a-z]*$//')
}

# start_agent makes the agent's container, or another if what it is told has
# changed. Its certificates come by environment, as in the demo of 2015.
start_agent() { # <place as given>
  local given="" name id sum network place=${1%%=*}
  case $1 in *=*) given=${1#*=} ;; esac
  find_place "$place"
  read_place
  name=agent-$(basename "$place_dir" | tr 'A-Z_.' 'a-z--')
  locate "$given" "$(basename "$place_dir")"
  network=$(docker inspect --format '{{range $name, $_ := .NetworkSettings.Networks}}{{$name}}{{end}}' "$master")
  agent_flags "$name"
  sum=$({ cat "$place_dir"/*.pem && printf '%s\n' "$MESOPOOL_IMAGE" "$place_host" "$network" "${flags[@]}"; } | digest)
  id=$(docker ps -aq --filter "name=^${cluster}_${name}\$" --filter "label=$PLACE_LABEL")
  if [ -n "$id" ] && [ "$(docker inspect --format '{{index .Config.Labels "io.mesopool.digest"}}' "$id")" != "$sum" ]; then
    docker rm -f "$id" >/dev/null
    id=""
  fi
  if [ -z "$id" ]; then make_agent "$name" "$sum" "$network"; fi
  docker start "${cluster}_$name" >/dev/null || fail "the agent $name did not start: the message above says why"
  say "The agent $name stands for the data center at $place_host (region $region, zone $zone)."
}

agent_flags() { # <name>
  flags=("--cluster=$cluster" "--name=$1" --master=master:5050 --provider=triton --work-dir=/var/lib/mesopool --consul=consul:8500
    --ip=0.0.0.0 --port=5051 "--attributes=region:$region;zone:$zone" "--triton-publish=${MESOPOOL_PLACE_PUBLISH:-true}")
  if $domains; then flags+=("--domain=$region/$zone"); fi
  if [ "$place_url" != - ] && [ -f "$place_dir/id" ]; then
    flags+=("--triton-url=$place_url" "--triton-account=$place_account" --triton-key=/id)
    if [ -f "$place_dir/cloudapi-ca.pem" ]; then flags+=(--triton-ca=/cloudapi-ca.pem); fi
  fi
}

make_agent() { # <name> <digest> <network>
  local container=${cluster}_$1 volume=${cluster}_$1-data file
  docker volume create --label "com.docker.compose.project=$cluster" --label com.docker.compose.volume=agent-data "$volume" >/dev/null
  docker create --name "$container" --hostname "$1" --restart always --network "$3" --volume "$volume:/var/lib/mesopool" \
    --label "$ROLE_LABEL=$cluster" --label "$PLACE_LABEL=$place_dir" --label "io.mesopool.agent=$1" --label "io.mesopool.digest=$2" \
    --env "DOCKER_HOST=$place_host" --env DOCKER_TLS_VERIFY=1 --env "TLSCA=$(cat "$place_dir/ca.pem")" \
    --env "TLSCERT=$(cat "$place_dir/cert.pem")" --env "TLSKEY=$(cat "$place_dir/key.pem")" \
    "$MESOPOOL_IMAGE" agent "${flags[@]}" >/dev/null || fail "the agent $1 could not be made: the message above says why"
  for file in id cloudapi-ca.pem; do
    if [ -f "$place_dir/$file" ]; then docker cp "$place_dir/$file" "$container:/$file" >/dev/null; fi
  done
}

parse "$@"
leave_team_view
master=$(role_container "$cluster" master)
if $remove; then
  remove_places "$cluster"
  say "The cluster \"$cluster\" has no agents in further data centers."
  exit
fi
if [ -z "$master" ]; then fail "there is no cluster \"$cluster\" on this engine: ./start.sh $cluster makes one"; fi
printf '%s' "$places" | while read -r place; do start_agent "$place"; done
