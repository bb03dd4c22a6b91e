# Clusters on a Docker engine: ports, Compose, removal. Sourced by start.sh and
# env.sh after lib.sh.
# shellcheck shell=bash disable=SC2154,SC2034
. "$root/scripts/team.sh"
. "$root/scripts/places.sh"
. "$root/scripts/triton.sh"

# COMPOSE_OVERRIDE is a further file for Compose: that of teams.
COMPOSE_OVERRIDE=""

# compose runs the Compose tool for the cluster; what it says is shown only if
# it fails.
compose() { # <arguments...>
  local out
  # docker-compose 1.x would take these bundles for the engine's own authority.
  # shellcheck disable=SC2086 # COMPOSE may be two words
  if ! out=$(env -u REQUESTS_CA_BUNDLE -u CURL_CA_BUNDLE $COMPOSE -f "$root/compose/docker-compose.yml" ${COMPOSE_OVERRIDE:+-f "$COMPOSE_OVERRIDE"} "$@" 2>&1 </dev/null); then
    printf '%s\n' "$out" >&2
    return 1
  fi
}

# refuse_strangers fails if another Compose project has the cluster's name: its
# containers would be taken for ours.
refuse_strangers() { # <cluster>
  local stranger
  stranger=$(docker ps -a --filter "label=com.docker.compose.project=$1" \
    --format "{{.Names}} {{.Label \"$ROLE_LABEL\"}}" | awk 'NF == 1 { print $1; exit }')
  if [ -n "$stranger" ]; then
    fail "this engine has another Compose project called \"$1\" (container $stranger): choose another name for the cluster, as in ./start.sh ${1}2"
  fi
}

# engine_settings exports how the agent reaches the engine, and which of its
# addresses work from here.
engine_settings() {
  local host
  host=$(endpoint)
  export MESOPOOL_PUBLISH=${MESOPOOL_PUBLISH:-127.0.0.1} MESOPOOL_PUBLISH_LOOPBACK=false
  export MESOPOOL_ENGINE_HOST="" MESOPOOL_ENGINE_TLS_VERIFY="" MESOPOOL_ENGINE_CERT_PATH=""
  if docker info --format '{{.OperatingSystem}}' | grep -q 'Docker Desktop'; then
    MESOPOOL_PUBLISH_LOOPBACK=true
  fi
  case $host in
    unix://*) socket_settings "${host#unix://}" ;;
    tcp://127.* | tcp://localhost:* | tcp://\[::1\]* | ssh://*)
      need_reachable "$host"
      socket_settings /var/run/docker.sock
      ;;
    tcp://*)
      need_reachable "$host"
      MESOPOOL_ENGINE_HOST=$host
      MESOPOOL_ENGINE_TLS_VERIFY=${DOCKER_TLS_VERIFY:-}
      if [ -n "${DOCKER_TLS_VERIFY:-}${DOCKER_TLS:-}" ]; then MESOPOOL_ENGINE_CERT_PATH=/certs; fi
      export MESOPOOL_ENGINE_MOUNT=engine-certs:/certs
      ;;
    *) fail "the agent cannot use an engine at $host: set DOCKER_HOST to a unix:// or tcp:// address" ;;
  esac
  # docker-compose 1.x knows nothing of Docker's contexts.
  if [ "$host" != unix:///var/run/docker.sock ]; then export DOCKER_HOST=$host; fi
}

# socket_settings mounts the engine's socket. Where the engine runs in a virtual
# machine of its own, that is the one in there.
socket_settings() { # <path>
  local path=$1
  if [ "$(uname -s)" = Darwin ] || $MESOPOOL_PUBLISH_LOOPBACK; then path=/var/run/docker.sock; fi
  export MESOPOOL_ENGINE_MOUNT=$path:/var/run/docker.sock
}

# need_reachable refuses an engine on another machine, unless the user says on
# which address of it the cluster may be published.
need_reachable() { # <endpoint>
  if [ "$MESOPOOL_PUBLISH" != 127.0.0.1 ]; then return; fi
  if [ "$(docker info --format '{{.Name}}')" = "$(hostname)" ]; then return; fi
  if $MESOPOOL_PUBLISH_LOOPBACK; then return; fi
  fail "the engine at $1 is on another machine, whose loopback cannot be reached from here: run start.sh there, or set MESOPOOL_PUBLISH to an address of that machine (anyone who reaches it can then run containers)"
}

# fill_certs copies the certificates for what the agent talks to into its
# volume, which works with engines elsewhere too.
fill_certs() { # <image> <folder>
  local from=$2 helper file
  if [ -z "${MESOPOOL_ENGINE_CERT_PATH:-}" ]; then return; fi
  for file in ca.pem cert.pem key.pem; do
    if [ ! -r "$from/$file" ]; then fail "there is no readable $from/$file, which the agent needs for $MESOPOOL_ENGINE_HOST: set DOCKER_CERT_PATH"; fi
  done
  compose up --no-start agent || fail "the agent's container could not be made: the messages above say why"
  helper=$(docker create --volume "${COMPOSE_PROJECT_NAME}_engine-certs:/certs" "$1" version)
  copy_certs "$from" "$helper" || fail "the certificates could not be copied for the agent: the messages above say why"
  docker rm "$helper" >/dev/null
}

# copy_certs copies a folder's certificates, and a team's SSH key, into a
# container's /certs.
copy_certs() { # <folder> <container>
  local file
  for file in ca.pem cert.pem key.pem; do docker cp "$1/$file" "$2:/certs/$file" >/dev/null || return 1; done
  if [ -f "$1/id" ]; then docker cp "$1/id" "$2:/certs/id" >/dev/null; fi
}

# ---- ports -----------------------------------------------------------------

# read_ports sets MASTER, MARATHON and CONSUL to host:port of a cluster on this
# engine; it fails if there is none.
read_ports() { # <cluster>
  local address master marathon consul
  if $triton; then
    triton_ports "$1"
    return
  fi
  read -r address master marathon consul <<EOF
$(cluster_ports "$1")
EOF
  if [ -z "${consul:-}" ]; then return 1; fi
  MASTER=$address:$master MARATHON=$address:$marathon CONSUL=$address:$consul
}

# choose_ports exports the ports for Compose: those that the cluster had, else
# the usual ones, else the next free.
choose_ports() { # <cluster>
  local had others
  had=$(cluster_ports "$1" | cut -d' ' -f2-)
  others=$(ports_of_others "$1")
  # shellcheck disable=SC2086 # a list of numbers
  set -- "$1" ${had:-5050 8080 8500}
  MESOPOOL_MASTER_PORT=$(choose_port "$1" master "$2" "$others")
  MESOPOOL_MARATHON_PORT=$(choose_port "$1" marathon "$3" "$others")
  MESOPOOL_CONSUL_PORT=$(choose_port "$1" consul "$4" "$others")
  export MESOPOOL_MASTER_PORT MESOPOOL_MARATHON_PORT MESOPOOL_CONSUL_PORT
  export COMPOSE_PROJECT_NAME=$1
  MASTER=$MESOPOOL_PUBLISH:$MESOPOOL_MASTER_PORT
  MARATHON=$MESOPOOL_PUBLISH:$MESOPOOL_MARATHON_PORT
  CONSUL=$MESOPOOL_PUBLISH:$MESOPOOL_CONSUL_PORT
}

# ports_of_others lists the ports of the other clusters, stopped ones included.
ports_of_others() { # <cluster>
  docker ps -a --filter "label=io.mesopool.ports" --format "{{.Label \"$ROLE_LABEL\"}} {{.Label \"io.mesopool.ports\"}}" |
    awk -v mine="$1" '$1 != mine { print $2, $3, $4 }'
}

# choose_port prints a port for a role: the wished one if the role has it, or if
# it is free; else the next free in steps of ten.
choose_port() { # <cluster> <role> <wish> <ports of others>
  local port=$3 own tries=0
  own=$(role_container "$1" "$2")
  if [ -n "$own" ] && [ "$(docker inspect --format '{{.State.Running}}' "$own")" = true ]; then
    printf '%s\n' "$port"
    return
  fi
  while listed "$port" "$4" || port_taken "$port"; do
    port=$((port + 10))
    tries=$((tries + 1))
    if [ "$tries" -ge 100 ]; then fail "no port is free for $2 from $3 to $port: stop what uses them"; fi
  done
  if [ "$port" != "$3" ]; then note "Port $3 is taken; $2 gets $port."; fi
  printf '%s\n' "$port"
}

listed() { # <word> <list>
  case " $(printf '%s' "$2" | tr '\n' ' ') " in
    *" $1 "*) return 0 ;;
    *) return 1 ;;
  esac
}

# ---- removal ---------------------------------------------------------------

VOLUMES="consul-data master-data agent-data marathon-data engine-certs"

cluster_volumes() { # <cluster>
  local name
  for name in $VOLUMES; do
    docker volume ls -q --filter "label=com.docker.compose.project=$1" --filter "label=com.docker.compose.volume=$name"
  done
}

cluster_network() { # <cluster>
  docker network ls -q --filter "name=^mesopool-$1\$"
}

cluster_exists() { # <cluster>
  if $triton; then
    [ -n "$(role_containers "$1")$(task_containers "$1")" ]
    return
  fi
  [ -n "$(role_containers "$1")$(task_containers "$1")$(cluster_network "$1")$(team_keys "$1")" ]
}

# remove_cluster removes everything of a cluster and nothing else. The roles go
# first, so that nobody replaces the tasks.
remove_cluster() { # <cluster>
  local quiet=0
  if $triton; then
    remove_triton "$1"
    return
  fi
  remove_places "$1"
  if is_team "$1"; then
    remove_team "$1"
    return
  fi
  role_containers "$1" | remove_containers
  while [ "$quiet" -lt 2 ]; do # what the agent was just starting may still appear
    if [ -z "$(task_containers "$1")" ]; then
      quiet=$((quiet + 1))
      sleep 0.3
    else
      quiet=0
      task_containers "$1" | remove_containers
    fi
  done
  cluster_volumes "$1" | while read -r id; do docker volume rm "$id" >/dev/null; done
  remove_network "$1"
}

remove_containers() {
  xargs -n 20 docker rm -f -v >/dev/null 2>&1 || true
}

remove_network() { # <cluster>
  local id guests
  id=$(cluster_network "$1")
  if [ -z "$id" ]; then return; fi
  guests=$(docker network inspect --format '{{range .Containers}}{{.Name}} {{end}}' "$id")
  if [ -n "$guests" ]; then
    fail "the cluster \"$1\" is gone but for its network mesopool-$1, which containers use that are not the cluster's ($guests): remove them and try again"
  fi
  docker network rm "$id" >/dev/null
}
