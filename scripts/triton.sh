# A whole cluster on a Triton data center, as the account's own containers.
# Sourced by cluster.sh.
#
# This is done with the docker command alone: today's Compose wants networks of
# its own and events, and sdc-docker has neither. Roles find one another by links.
# shellcheck shell=bash disable=SC2154,SC2034

TRITON_LABEL=io.mesopool.triton

# triton_settings points the docker command at the data center: with a profile of
# the triton command or a folder of sdc-docker-setup.sh, else as it is already.
triton_settings() { # <folder or profile, or "">
  if [ -n "$1" ]; then
    find_place "$1"
    read_place
    export DOCKER_HOST=$place_host DOCKER_TLS_VERIFY=1 DOCKER_CERT_PATH=$place_dir
  fi
  if [ -z "${DOCKER_HOST:-}" ] || [ -z "${DOCKER_CERT_PATH:-}" ]; then
    fail "no data center is named: ./start.sh $cluster --triton PROFILE, or set DOCKER_HOST, DOCKER_CERT_PATH and DOCKER_TLS_VERIFY (eval \"\$(triton env --docker)\" does)"
  fi
  if ! engine_answers; then fail "the data center at $DOCKER_HOST does not answer: $(engine_complaint)"; fi
  MESOPOOL_TRITON_IMAGE=${MESOPOOL_TRITON_IMAGE:-}
  if [ -z "$MESOPOOL_TRITON_IMAGE" ]; then
    fail "a data center cannot build images: push mesopool/mesopool to a registry that it reaches, and set MESOPOOL_TRITON_IMAGE to its name there"
  fi
}

is_triton() { # <cluster>
  local master
  master=$(role_container "$1" master)
  [ -n "$master" ] && [ -n "$(docker inspect --format "{{index .Config.Labels \"$TRITON_LABEL\"}}" "$master")" ]
}

# triton_address is a role's: on Triton it is public where ports are published.
triton_address() { # <cluster> <role>
  local id
  id=$(role_container "$1" "$2")
  if [ -n "$id" ]; then docker inspect --format '{{.NetworkSettings.IPAddress}}' "$id"; fi
}

# triton_role makes a role's container unless it is there, and starts it. What
# is made takes as long as provisioning does.
triton_role() { # <role> <port> <image> <docker flags, one a line> <arguments...>
  local role=$1 port=$2 image=$3 flag flags=()
  while read -r flag; do if [ -n "$flag" ]; then flags+=("$flag"); fi; done <<FLAGS
$4
FLAGS
  shift 4
  if [ -z "$(role_container "$cluster" "$role")" ]; then
    say "  provisioning $role"
    docker image inspect "$image" >/dev/null 2>&1 || docker pull "$image" >/dev/null || return 1
    docker create --name "$cluster-$role" --restart always --memory 256m --publish "$port:$port" --label "$ROLE_LABEL=$cluster" \
      --label "com.docker.compose.service=$role" --label "$TRITON_LABEL=true" ${flags[@]+"${flags[@]}"} "$image" "$@" >/dev/null || return 1
  fi
  docker start "$cluster-$role" >/dev/null
}

# triton_roles brings up all roles, each after those that it links to. The
# agent's certificates come by environment, as in the demo of 2015.
triton_roles() {
  local consul master
  consul=--link=$cluster-consul:consul master=--link=$cluster-master:master
  TLSCA=$(cat "$DOCKER_CERT_PATH/ca.pem") TLSCERT=$(cat "$DOCKER_CERT_PATH/cert.pem") TLSKEY=$(cat "$DOCKER_CERT_PATH/key.pem")
  export TLSCA TLSCERT TLSKEY
  triton_role consul 8500 "${MESOPOOL_CONSUL_IMAGE:-hashicorp/consul:$(consul_version)}" "" agent -server -bootstrap-expect=1 -ui \
    -client=0.0.0.0 '-bind={{ GetPrivateIP }}' -data-dir=/consul/data '-hcl=disable_update_check = true' || return 1
  triton_role master 5050 "$MESOPOOL_TRITON_IMAGE" "$consul" master "--cluster=$cluster" --ip=0.0.0.0 --port=5050 \
    --work-dir=/var/lib/mesopool --consul=consul:8500 || return 1
  triton_role agent 5051 "$MESOPOOL_TRITON_IMAGE" "$consul
$master
--env=DOCKER_HOST=${MESOPOOL_TRITON_HOST:-$DOCKER_HOST}
--env=DOCKER_TLS_VERIFY=1
--env=TLSCA
--env=TLSCERT
--env=TLSKEY" agent "--cluster=$cluster" --name=agent --master=master:5050 --provider=triton "--triton-publish=${MESOPOOL_PLACE_PUBLISH:-true}" \
    --work-dir=/var/lib/mesopool --consul=consul:8500 --ip=0.0.0.0 --port=5051 ${MESOPOOL_TRITON_RESOURCES:+"--resources=$MESOPOOL_TRITON_RESOURCES"} || return 1
  triton_role marathon 8080 "$MESOPOOL_TRITON_IMAGE" "$consul
$master" marathon "--cluster=$cluster" --master=master:5050 --ip=0.0.0.0 --port=8080 --work-dir=/var/lib/mesopool --consul=consul:8500
}
