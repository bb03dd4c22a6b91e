#!/usr/bin/env bash
# Makes sure that a Docker engine and a Compose tool are here and answer; on
# Debian and Ubuntu, as root, it installs and starts what is missing.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
. "$root/scripts/lib.sh"

need_engine
need_compose
say "Docker engine $(docker version --format '{{.Server.Version}}') answers at $(endpoint); Compose is \"$COMPOSE\"."
