# Teams: clusters whose agent reaches the engine through a Triton-style endpoint
# only, as one tenant of it. One endpoint serves all teams of an engine. Sourced
# by cluster.sh.
# shellcheck shell=bash disable=SC2154,SC2034

# The endpoint's container and its volume, and what it calls its own on the
# engine.
ENDPOINT=mesopool-endpoint
ENDPOINT_LABEL=io.mesopool.endpoint.address

# What a team may use without pulling it.
TEAM_IMAGES=mesopool/hello:demo,mesopool/nats-node:demo,mesopool/nats-load:demo,nginx:latest

# team_dir holds a team's certificates and keys, for this user only.
team_dir() { printf '%s/teams/%s\n' "$(state_dir)" "$1"; }

# leave_team_view points the docker command at the engine again, after env.sh
# has pointed it at a team's view of it.
leave_team_view() {
  local dir=${DOCKER_CERT_PATH:-}
  if ! is_team_view "$dir"; then return; fi
  unset DOCKER_HOST DOCKER_CERT_PATH DOCKER_TLS_VERIFY
  # shellcheck disable=SC1091 # exports, written by ensure_account
  if [ -f "${dir%/certs}/engine" ]; then . "${dir%/certs}/engine"; fi
}

is_team_view() { # <certificate folder>
  case $1 in
    "$(state_dir)"/teams/*/certs) return 0 ;;
    *) return 1 ;;
  esac
}

# team_docker is the docker command with the team's view.
team_docker() { # <cluster> <arguments...>
  local team=$1
  shift
  DOCKER_HOST=tcp://$(endpoint_address) DOCKER_TLS_VERIFY=1 DOCKER_CERT_PATH=$(team_dir "$team")/certs docker "$@"
}

# is_team says whether the cluster, or what is left of it, is a team.
is_team() { # <cluster>
  local master
  master=$(role_container "$1" master)
  if [ -n "$master" ]; then
    [ -n "$(docker inspect --format '{{index .Config.Labels "io.mesopool.team"}}' "$master")" ]
    return
  fi
  [ -n "$(team_keys "$1")" ]
}

# ---- the endpoint ----------------------------------------------------------

endpoint_container() { docker ps -aq --filter "name=^$ENDPOINT\$" --filter "label=$ENDPOINT_LABEL"; }

endpoint_address() { docker inspect --format "{{index .Config.Labels \"$ENDPOINT_LABEL\"}}" "$ENDPOINT" 2>/dev/null; }

endpoint_answers() { curl --noproxy '*' -fsSk -o /dev/null --max-time 3 "https://$(endpoint_address)/_ping" 2>/dev/null; }

endpoint_runs() { [ "$(docker inspect --format '{{.State.Running}}' "$ENDPOINT" 2>/dev/null)" = true ]; }

# ensure_endpoint makes sure that the engine's endpoint runs and is of the
# program as it is now. What its teams run goes on meanwhile. This and what else
# can break off half-way says why and fails, so that it can be undone.
ensure_endpoint() {
  local have_image want_image begin=$SECONDS
  want_image=$(docker image inspect --format '{{.Id}}' "$MESOPOOL_IMAGE")
  have_image=$(docker inspect --format '{{.Image}}' "$ENDPOINT" 2>/dev/null || true)
  if [ -n "$have_image" ] && [ -z "$(endpoint_container)" ]; then
    fail "this engine has a container called $ENDPOINT that start.sh did not make: rename or remove it"
  fi
  if [ "$have_image" != "$want_image" ]; then make_endpoint || return 1; fi
  docker start "$ENDPOINT" >/dev/null || return 1
  until endpoint_answers; do
    if [ $((SECONDS - begin)) -ge 60 ]; then
      docker logs --tail 15 "$ENDPOINT" >&2 || true
      note "The endpoint does not answer at $(endpoint_address) after a minute: above are the last lines that it wrote."
      return 1
    fi
    sleep 0.3
  done
}

# make_endpoint makes the endpoint's container: it alone has the engine. It is in
# the networks of all teams and must never pass anything from one to another.
make_endpoint() {
  local address network
  address=$(endpoint_address || true)
  if [ -z "$address" ]; then address=$MESOPOOL_PUBLISH:$(endpoint_port); fi
  say "Starting the endpoint at $address."
  docker rm -f "$ENDPOINT" >/dev/null 2>&1 || true
  docker create --name "$ENDPOINT" --restart always --sysctl net.ipv4.ip_forward=0 --cap-drop ALL \
    --security-opt no-new-privileges --label "$ENDPOINT_LABEL=$address" --publish "$address:2376" --volume "$ENDPOINT:/state" \
    --volume "$endpoint_mount" --env "DOCKER_HOST=$MESOPOOL_ENGINE_HOST" --env "DOCKER_TLS_VERIFY=$MESOPOOL_ENGINE_TLS_VERIFY" \
    --env "DOCKER_CERT_PATH=$MESOPOOL_ENGINE_CERT_PATH" "$MESOPOOL_IMAGE" endpoint --state=/state --ip=0.0.0.0 --backend=engine \
    --name="$ENDPOINT" --hostname="endpoint,${address%:*}" >/dev/null || return 1
  if [ -n "$MESOPOOL_ENGINE_CERT_PATH" ]; then copy_certs "${DOCKER_CERT_PATH:-$HOME/.docker}" "$ENDPOINT" || return 1; fi
  for network in $(team_networks); do
    docker network connect --alias endpoint "$network" "$ENDPOINT" || return 1
  done
}

endpoint_port() {
  local port=2376
  while port_taken "$port"; do port=$((port + 10)); done
  printf '%s\n' "$port"
}

# ---- accounts --------------------------------------------------------------

endpoint_accounts() { # prints "<login> <id>" each
  docker exec "$ENDPOINT" /mesopool endpoint account list --state=/state 2>/dev/null | awk 'NR > 1 { print $1, $2 }'
}

# team_networks lists the networks of all teams.
team_networks() { docker network ls --filter "label=mesopool.endpoint=$ENDPOINT" --format '{{.Name}}'; }

# team_keys prints what the cluster's account is called on the engine,
# "<login>-<8 digits>"; several where an earlier removal was broken off.
team_keys() { # <cluster>
  {
    team_networks | sed "s/^$ENDPOINT-//"
    if endpoint_runs; then endpoint_accounts | awk '{ print $1 "-" substr($2, 1, 8) }'; fi
  } | grep -x "$1-[0-9a-f]\{8\}" | sort -u || true
}

# account_key is that of the account that exists.
account_key() { # <cluster>
  endpoint_accounts | awk -v login="$1" '$1 == login { print $1 "-" substr($2, 1, 8) }'
}

# ensure_account makes sure that the team has an account and working
# certificates for it here.
ensure_account() { # <cluster>
  local dir
  dir=$(team_dir "$1")
  (umask 077 && mkdir -p "$dir/certs" && chmod 700 "$dir" && save_engine >"$dir/engine") || return 1
  if [ ! -f "$dir/certs/id" ] && have ssh-keygen; then
    ssh-keygen -q -t ed25519 -N "" -C "$1" -f "$dir/certs/id" || return 1
  fi
  if team_docker "$1" ps -q >/dev/null 2>&1; then return; fi
  say "Giving the team \"$1\" an account of the endpoint."
  if [ -f "$dir/certs/id.pub" ]; then
    add_account "$1" --key=/dev/stdin <"$dir/certs/id.pub"
  else
    add_account "$1" </dev/null
  fi || return 1
  docker cp "$ENDPOINT:/state/accounts/$1/certs/." "$dir/certs" >/dev/null && chmod 700 "$dir/certs"
}

add_account() { # <cluster> <flags...>
  local team=$1
  shift
  docker exec -i "$ENDPOINT" /mesopool endpoint account add "$team" --state=/state "--image=$TEAM_IMAGES" "$@" >/dev/null
}

# save_engine prints exports of which engine the docker command talks to.
save_engine() {
  local name
  for name in DOCKER_HOST DOCKER_CERT_PATH DOCKER_TLS_VERIFY; do
    if [ -n "${!name:-}" ]; then printf 'export %s=%q\n' "$name" "${!name}"; fi
  done
}

# ---- a team's cluster ------------------------------------------------------

# enter_team prepares everything for the cluster's roles: the endpoint, the
# account, its network, and what the agent is told of them.
enter_team() { # <cluster>
  local guard ok=0
  guard=$(cache_dir)/endpoint.lock
  endpoint_mount=$MESOPOOL_ENGINE_MOUNT
  if [ -n "$MESOPOOL_ENGINE_HOST" ]; then endpoint_mount=$ENDPOINT-engine:/certs; fi
  lock "$guard"
  prepare_team "$1" || ok=1
  unlock "$guard"
  return "$ok"
}

prepare_team() { # <cluster>
  local key
  ensure_endpoint || return 1
  ensure_account "$1" || return 1
  team_docker "$1" network ls >/dev/null || return 1 # this makes the account's network
  key=$(account_key "$1")
  join_network "$ENDPOINT-$key" || return 1
  team_settings "$1" "$ENDPOINT-$key"
}

need_team_name() { # <cluster>
  case $1 in
    [0-9]*) fail "\"$1\" is no name for a team: it must begin with a letter, since it is the login of the team's account" ;;
  esac
}

join_network() { # <network>
  case " $(docker inspect --format '{{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}' "$ENDPOINT")" in
    *" $1 "*) return 0 ;;
  esac
  docker network connect --alias endpoint "$1" "$ENDPOINT"
}

# team_settings exports for Compose what the roles of a team are told.
team_settings() { # <cluster> <network>
  certs_from=$(team_dir "$1")/certs
  COMPOSE_OVERRIDE=$root/compose/endpoint.yml
  export MESOPOOL_TEAM_NETWORK=$2 MESOPOOL_PUBLISH_LOOPBACK=false MESOPOOL_TRITON_URL="" MESOPOOL_TEAM_RESOURCES
  export MESOPOOL_ENGINE_HOST=tcp://endpoint:2376 MESOPOOL_ENGINE_TLS_VERIFY=1 MESOPOOL_ENGINE_CERT_PATH=/certs
  export MESOPOOL_ENGINE_MOUNT=engine-certs:/certs
  if [ -f "$(team_dir "$1")/certs/id" ]; then MESOPOOL_TRITON_URL=https://endpoint:8443; fi
  MESOPOOL_TEAM_RESOURCES=$(docker info --format '{{.NCPU}} {{.MemTotal}}' | awk '{ printf "cpus:%d;mem:%d;disk:65536", $1, $2 / 1048576 }')
}

team_env() { # <cluster>
  printf 'export DOCKER_HOST=tcp://%s\nexport DOCKER_CERT_PATH=%q\nexport DOCKER_TLS_VERIFY=1\n' "$(endpoint_address)" "$(team_dir "$1")/certs"
}

# ---- removal ---------------------------------------------------------------

# remove_team removes a team's cluster with its account and all that it has, and
# the endpoint after the last team.
remove_team() { # <cluster>
  local guard key keys id
  guard=$(cache_dir)/endpoint.lock
  lock "$guard"
  keys=$(team_keys "$1")
  role_containers "$1" | remove_containers
  if endpoint_runs && [ -n "$(account_key "$1")" ]; then
    empty_account "$1"
    docker exec "$ENDPOINT" /mesopool endpoint account remove "$1" --state=/state >/dev/null
  fi
  for key in $keys; do remove_account_rest "$1" "$key"; done
  cluster_volumes "$1" | while read -r id; do docker volume rm "$id" >/dev/null; done
  rm -rf "$(team_dir "$1")"
  remove_idle_endpoint
  unlock "$guard"
}

# empty_account removes all containers of an account; what is just being
# provisioned cannot be removed yet.
empty_account() { # <cluster>
  local ids i
  for ((i = 0; i < 20; i++)); do
    ids=$(team_docker "$1" ps -aq 2>/dev/null) || return 0
    if [ -z "$ids" ]; then return 0; fi
    # shellcheck disable=SC2086 # a list of words
    team_docker "$1" rm -f $ids >/dev/null 2>&1 || sleep 0.5
  done
}

# remove_account_rest removes from the engine what an account that is no more
# has left: orders that were under way are carried out still.
remove_account_rest() { # <cluster> <key>
  local quiet=0 rest guests network=$ENDPOINT-$2
  while [ "$quiet" -lt 2 ]; do
    rest=$(docker ps -aq --filter "label=mesopool.endpoint=$ENDPOINT" --filter "name=^$ENDPOINT\\.$2\\.")
    if [ -z "$rest" ]; then
      quiet=$((quiet + 1))
      sleep 0.3
    else
      quiet=0
      printf '%s\n' "$rest" | remove_containers
    fi
  done
  if ! docker network inspect "$network" >/dev/null 2>&1; then return; fi
  docker network disconnect -f "$network" "$ENDPOINT" >/dev/null 2>&1 || true
  guests=$(docker network inspect --format '{{range .Containers}}{{.Name}} {{end}}' "$network")
  if [ -n "$guests" ]; then
    fail "the cluster \"$1\" is gone but for its network $network, which containers use that are not the team's ($guests): remove them and try again"
  fi
  docker network rm "$network" >/dev/null
}

remove_idle_endpoint() {
  if [ -n "$(team_networks)" ]; then return; fi
  if endpoint_runs && [ -n "$(endpoint_accounts)" ]; then return; fi
  if [ -n "$(endpoint_container)" ]; then docker rm -f "$ENDPOINT" >/dev/null; fi
  docker volume rm -f "$ENDPOINT" "$ENDPOINT-engine" >/dev/null
}
