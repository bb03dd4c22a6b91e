#!/usr/bin/env bash
# All tests, as CI runs them. Sets up what they need: a Docker engine and a
# Compose tool (installed on Debian and Ubuntu, as root), a C compiler for the
# race detector, a Consul server (built once and cached).
#
#   scripts/test.sh            everything
#   scripts/test.sh --fast     no race detector, no end-to-end run
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
. "$root/scripts/lib.sh"
cd "$root"

fast=false
case ${1:-} in
  "") ;;
  --fast) fast=true ;;
  *) fail "\"$1\" is no argument of scripts/test.sh; it takes --fast" ;;
esac

step() { say "== $* (at $((SECONDS / 60)) min $((SECONDS % 60)) s)"; }

need_compiler() {
  if have gcc || have clang; then return; fi
  if is_debian && is_root; then
    say "Installing a C compiler for the race detector."
    apt_install gcc libc6-dev
  fi
  have gcc || have clang || fail "the race detector needs a C compiler: install gcc, or run scripts/test.sh --fast"
}

# need_servers installs what some tests talk to: a registry to pull from, and a
# ZooKeeper to find a master in.
need_servers() {
  if have docker-registry && [ -e /usr/share/zookeeper/bin/zkServer.sh ]; then return; fi
  if is_debian && is_root; then
    say "Installing a registry and a ZooKeeper for the tests that need them."
    apt_install docker-registry zookeeper
  fi
}

# racy lists the packages to test under the race detector: all but those that
# wait for engines most of the time, and the simulator, which has one goroutine.
racy() { go list ./... | grep -v -e /provider/docker -e /internal/cli -e /internal/importrules -e '/mesos$' -e /sim; }

step "a Docker engine and Compose"
bash scripts/engine.sh
need_go
need_curl
need_servers
step "a Consul server"
consul=$(bash scripts/consul.sh)
say "Consul is $("$consul" version | head -1)."
step "fast checks"
bash scripts/check.sh
step "the sample programs"
(cd compose/sample && go build -o /dev/null ./hello && go vet ./...)
step "foreign frameworks against the program"
(cd internal/interop && go vet ./... && go test -timeout 10m ./...)
step "tests"
go test -timeout 20m ./...
if $fast; then exit 0; fi
need_compiler
step "tests under the race detector"
# shellcheck disable=SC2046 # a list of packages
CGO_ENABLED=1 go test -race -timeout 30m $(racy)
step "a cluster from end to end"
bash scripts/e2e.sh
step "teams behind the endpoint, from end to end"
bash scripts/e2e.sh --endpoint
