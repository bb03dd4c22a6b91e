#!/usr/bin/env bash
# Prints the path of a Consul server binary, building it first if it is not in
# the cache: tools/consul pins the version. Several callers at once build once.
#
#   scripts/consul.sh                    for this machine
#   scripts/consul.sh --target linux/arm64   for an image
#   scripts/consul.sh --cached           print the path only if it is there (exit 1 if not)
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
. "$root/scripts/lib.sh"

build() { # <os> <arch> <path>
  local partial="$3.partial.$$"
  note "building Consul $(consul_version) for $1/$2: about five CPU minutes, once; kept in $(dirname "$3")"
  # The checksum database does not know one of Consul's own modules; go.sum does.
  (cd "$root/tools/consul" &&
    CGO_ENABLED=0 GOOS=$1 GOARCH=$2 GOWORK=off GONOSUMDB=github.com/hashicorp/consul/envoyextensions \
      nice go build -buildvcs=false -trimpath -ldflags="-s -w" -o "$partial" github.com/hashicorp/consul) >&2 || {
    rm -f "$partial"
    fail "Consul did not build: the messages above say why; the Go module proxy must be reachable the first time"
  }
  mv "$partial" "$3"
}

main() {
  local target="" cached=false
  while [ $# -gt 0 ]; do
    case $1 in
      --target) target=${2:?--target needs a value such as linux/amd64}; shift 2 ;;
      --cached) cached=true; shift ;;
      *) fail "\"$1\" is no argument of scripts/consul.sh; it takes --target OS/ARCH and --cached" ;;
    esac
  done
  need_go
  : "${target:=$(go env GOOS)/$(go env GOARCH)}"
  local path
  path=$(consul_path "${target%/*}" "${target#*/}")
  if [ ! -x "$path" ]; then
    if $cached; then exit 1; fi
    mkdir -p "$(dirname "$path")"
    lock "$path.lock"
    if [ ! -x "$path" ]; then build "${target%/*}" "${target#*/}" "$path"; fi
    unlock "$path.lock"
  fi
  printf '%s\n' "$path"
}

main "$@"
