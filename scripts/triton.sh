# A whole cluster on a Triton data center, as the account's own containers.
# Sourced by cluster.sh.
#
# This is done with the docker command alone: today's Compose wants networks of
# its own and events, and sdc-docker has neither. Roles find one another by links.
# shellcheck shell=bash disable=SC2154,SC2034

# triton says whether the docker command talks to a data center, not an engine.
triton=false

# find_datacenter sets it, after it has pointed the docker command at a profile
# of the triton command or a folder of sdc-docker-setup.sh, if one is given.
find_datacenter() { # <folder or profile, or "">
  if [ -n "$1" ]; then
    find_place "$1"
    read_place
    export DOCKER_HOST=$place_host DOCKER_TLS_VERIFY=1 DOCKER_CERT_PATH=$place_dir
  elif [ -z "${DOCKER_HOST:-}" ] || [ -z "${DOCKER_CERT_PATH:-}" ]; then
    return 0
  fi
  case $(docker info --format '{{.OperatingSystem}}' 2>/dev/null) in
    SmartDataCenter | Triton) triton=true ;;
  esac
}

# need_datacenter is for those who said --triton.
need_datacenter() {
  if $triton; then return; fi
  if [ -z "${DOCKER_HOST:-}" ] || [ -z "${DOCKER_CERT_PATH:-}" ]; then
    fail "no data center is named: use --triton=PROFILE, or set DOCKER_HOST, DOCKER_CERT_PATH and DOCKER_TLS_VERIFY (eval \"\$(triton env --docker)\" does)"
  fi
  if ! engine_answers; then fail "the data center at $DOCKER_HOST does not answer: $(engine_complaint)"; fi
  fail "what answers at $DOCKER_HOST is no Triton data center: leave out --triton"
}

# triton_ports is read_ports there: every role has an address of its own.
triton_ports() { # <cluster>
  MASTER=$(triton_address "$1" master):5050 MARATHON=$(triton_address "$1" marathon):8080 CONSUL=$(triton_address "$1" consul):8500
  [ "$MASTER" != :5050 ]
}

# triton_address is public on Triton, since the roles' ports are published.
triton_address() { # <cluster> <role>
  local id
  id=$(role_container "$1" "$2")
  if [ -n "$id" ]; then docker inspect --format '{{.NetworkSettings.IPAddress}}' "$id"; fi
}

# triton_roles brings up all roles, each after those that it links to. The
# agent's certificates come by environment, as in the demo of 2015.
triton_roles() {
  local consul=--link=$cluster-consul:consul master=--link=$cluster-master:master common
  common=("--cluster=$cluster" --ip=0.0.0.0 --work-dir=/var/lib/mesopool --consul=consul:8500)
  if [ -z "${MESOPOOL_TRITON_IMAGE:=}" ] && [ "$(role_containers "$cluster" | wc -l)" -lt 4 ]; then
    fail "a data center builds no images: push mesopool/mesopool:local to a registry that it reaches, and set MESOPOOL_TRITON_IMAGE to its name there"
  fi
  TLSCA=$(cat "$DOCKER_CERT_PATH/ca.pem") TLSCERT=$(cat "$DOCKER_CERT_PATH/cert.pem") TLSKEY=$(cat "$DOCKER_CERT_PATH/key.pem")
  export TLSCA TLSCERT TLSKEY
  triton_role consul 8500 "${MESOPOOL_CONSUL_IMAGE:-hashicorp/consul:$(consul_version)}" -- agent -server -bootstrap-expect=1 -ui \
    -client=0.0.0.0 '-bind={{ GetPrivateIP }}' -data-dir=/consul/data '-hcl=disable_update_check = true' &&
    triton_role master 5050 "$MESOPOOL_TRITON_IMAGE" "$consul" -- master "${common[@]}" --port=5050 &&
    triton_role agent 5051 "$MESOPOOL_TRITON_IMAGE" "$consul" "$master" --env="DOCKER_HOST=$DOCKER_HOST" --env=DOCKER_TLS_VERIFY=1 \
      --env=TLSCA --env=TLSCERT --env=TLSKEY -- agent "${common[@]}" --port=5051 --name=agent --master=master:5050 --provider=triton \
      "--triton-publish=${MESOPOOL_PLACE_PUBLISH:-true}" ${MESOPOOL_TRITON_RESOURCES:+"--resources=$MESOPOOL_TRITON_RESOURCES"} &&
    triton_role marathon 8080 "$MESOPOOL_TRITON_IMAGE" "$consul" "$master" -- marathon "${common[@]}" --port=8080 --master=master:5050
}

# triton_role makes a role's container unless it is there, and starts it.
triton_role() { # <role> <port> <image> <docker flags...> -- <arguments...>
  local role=$1 port=$2 image=$3 flags=()
  shift 3
  while [ "$1" != -- ]; do
    flags+=("$1")
    shift
  done
  shift
  if [ -z "$(role_container "$cluster" "$role")" ]; then
    say "  provisioning $role"
    docker image inspect "$image" >/dev/null 2>&1 || docker pull -q "$image" >/dev/null || return 1
    docker create --name "$cluster-$role" --restart always --memory 256m --publish "$port:$port" --label "$ROLE_LABEL=$cluster" \
      --label "com.docker.compose.service=$role" ${flags[@]+"${flags[@]}"} "$image" "$@" >/dev/null || made "$role" || return 1
  fi
  docker start "$cluster-$role" >/dev/null
}

# made waits for a container whose order lost its answer: a connection that is
# quiet for two minutes is cut, and the order is carried out all the same.
made() { # <role>
  local begin=$SECONDS state
  while [ $((SECONDS - begin)) -lt 900 ]; do
    state=$(docker ps -a --filter "name=^$cluster-$1\$" --format '{{.Status}}') || return 1
    case $state in
      "") return 1 ;;
      Provisioning*) sleep 2 ;;
      *) return 0 ;;
    esac
  done
  return 1
}

# remove_triton removes a cluster's containers, the roles first so that nobody
# replaces the tasks; what is being provisioned can be removed only then.
remove_triton() { # <cluster>
  local ids begin=$SECONDS quiet=0
  role_containers "$1" | remove_containers
  while [ "$quiet" -lt 2 ]; do
    ids=$(role_containers "$1" && task_containers "$1") || return 1
    if [ -z "$ids" ]; then
      quiet=$((quiet + 1))
    elif [ $((SECONDS - begin)) -ge 900 ]; then
      note "mesopool: these containers could not be removed, try again later: $ids"
      return 1
    else
      quiet=0
      printf '%s\n' "$ids" | remove_containers
    fi
    sleep 0.5
  done
}
