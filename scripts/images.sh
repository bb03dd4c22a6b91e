# The images of the demo: static binaries, built here, in images made of nothing
# else. Sourced by start.sh after lib.sh.
# shellcheck shell=bash disable=SC2154,SC2034

MESOPOOL_IMAGE=mesopool/mesopool:local
export MESOPOOL_IMAGE

# build_static builds a Go program for the engine's platform.
build_static() { # <module folder> <package> <output>
  local platform
  platform=$(engine_platform)
  (cd "$1" && CGO_ENABLED=0 GOOS=${platform%/*} GOARCH=${platform#*/} GOWORK=off \
    go build -buildvcs=false -trimpath -ldflags="-s -w" -o "$3" "$2") >&2
}

# make_image makes an image of one binary, unless it is there and the same.
make_image() { # <image> <Dockerfile> <binary> <name in the image>
  local sum context out
  sum=$(cat "$2" "$3" | digest)
  if [ "$(docker image inspect --format '{{index .Config.Labels "io.mesopool.digest"}}' "$1" 2>/dev/null)" = "$sum" ]; then return; fi
  say "Building the image $1."
  context=$(mktemp -d)
  cp "$2" "$context/Dockerfile"
  cp "$3" "$context/$4"
  if ! out=$(docker build -q --label "io.mesopool.digest=$sum" -t "$1" "$context" 2>&1); then
    rm -rf "$context"
    printf '%s\n' "$out" >&2
    fail "the image $1 could not be built: the messages above say why"
  fi
  rm -rf "$context"
}

# ensure_mesopool_image builds the program and its image. Without Go, a binary
# that was put at dist/mesopool is taken as it is.
ensure_mesopool_image() {
  local binary=$root/dist/mesopool
  if find_go; then
    binary=$root/dist/images/mesopool
    say "Building mesopool."
    build_static "$root" ./cmd/mesopool "$binary" || fail "mesopool did not build: the messages above say why"
  elif [ ! -x "$binary" ]; then
    need_go
  fi
  make_image "$MESOPOOL_IMAGE" "$root/compose/mesopool.Dockerfile" "$binary" mesopool
}

# ensure_sample_images builds the sample applications. The cluster runs without.
ensure_sample_images() {
  local program
  if ! find_go; then
    note "There is no Go here, so the sample images (mesopool/hello:demo and others) are not built."
    return
  fi
  for program in hello nats-node nats-load; do
    if ! build_static "$root/compose/sample" "./$program" "$root/dist/images/$program"; then
      note "The sample $program did not build; the cluster works without it."
      continue
    fi
    make_image "mesopool/$program:demo" "$root/compose/sample/Dockerfile" "$root/dist/images/$program" program
  done
}

# ensure_consul_image finds, pulls or builds an image of Consul and exports its
# name. What this machine has already goes first, so that nothing waits.
ensure_consul_image() { # <cluster>
  local version hub own binary
  version=$(consul_version)
  hub=hashicorp/consul:$version own=mesopool/consul:$version
  export MESOPOOL_CONSUL_IMAGE
  MESOPOOL_CONSUL_IMAGE=$(consul_image_of "$1")
  if [ -n "$MESOPOOL_CONSUL_IMAGE" ]; then return; fi
  MESOPOOL_CONSUL_IMAGE=$hub
  if have_image "$hub"; then return; fi
  MESOPOOL_CONSUL_IMAGE=$own
  if binary=$(cached_consul); then
    make_image "$own" "$root/compose/consul.Dockerfile" "$binary" consul
    return
  fi
  if have_image "$own"; then return; fi
  if pull_consul "$hub"; then
    MESOPOOL_CONSUL_IMAGE=$hub
    return
  fi
  binary=$(build_consul) || return 1
  make_image "$own" "$root/compose/consul.Dockerfile" "$binary" consul
}

have_image() { docker image inspect "$1" >/dev/null 2>&1; }

# consul_image_of is the image that the cluster's Consul has, if it still is
# here: running start.sh again changes nothing.
consul_image_of() { # <cluster>
  local container image
  container=$(role_container "$1" consul)
  if [ -z "$container" ]; then return; fi
  image=$(docker inspect --format '{{.Config.Image}}' "$container")
  if have_image "$image"; then printf '%s\n' "$image"; fi
}

cached_consul() {
  find_go && "$root/scripts/consul.sh" --cached --target "$(engine_platform)"
}

pull_consul() { # <image>
  say "Pulling $1, for three minutes at most."
  bounded 180 docker pull -q "$1" >/dev/null 2>&1
}

# build_consul prints the path of a binary, with progress on standard error.
build_consul() {
  local out pid
  note "No registry gave an image of Consul: building it here. The rest of the cluster runs meanwhile, at http://$MASTER and http://$MARATHON."
  find_go || { note "That needs the Go toolchain, and there is no \"go\" here."; return 1; }
  out=$(mktemp)
  "$root/scripts/consul.sh" --target "$(engine_platform)" >"$out" &
  pid=$!
  while kill -0 "$pid" 2>/dev/null; do
    printf '.' >&2
    sleep 2
  done
  printf '\n' >&2
  wait "$pid" || { rm -f "$out"; return 1; }
  cat "$out"
  rm -f "$out"
}
