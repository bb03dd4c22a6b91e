#!/bin/sh
# Regenerates the Go code of the .proto files, with the tools that tools/go.mod
# pins. Needs no network (once the modules are there) and no protoc.
# An argument names another folder to write to.
set -eu
cd "$(dirname "$0")/.."
out=$(cd "${1:-.}" && pwd)
root=$PWD
cd tools
exec go run ./gen -proto "$root/mesos/proto" -module github.com/mesopool/mesopool -out "$out"
