#!/usr/bin/env bash
# The fast checks: format, vet, staticcheck, import rules, shell syntax, JSON.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
. "$root/scripts/lib.sh"
cd "$root"

tool() { go tool -modfile=tools/go.mod "$@"; }

check_format() {
  local wrong
  wrong=$(tool gofumpt -l . | grep -v '\.pb\.go$' || true) # generated files are gofmt's
  if [ -n "$wrong" ]; then
    fail "these files are not formatted: $(printf '%s' "$wrong" | tr '\n' ' '); run go tool -modfile=tools/go.mod gofumpt -w on them"
  fi
}

check_shell() {
  local script
  for script in start.sh env.sh .ci/run scripts/*.sh; do
    bash -n "$script" || fail "$script has an error of syntax: the line above says where"
  done
  if have shellcheck; then shellcheck -x -S warning start.sh env.sh .ci/run scripts/*.sh; fi
}

need_go
say "check: gofumpt"
check_format
say "check: go vet"
go vet ./...
(cd compose/sample && go vet ./...)
say "check: staticcheck"
tool staticcheck ./...
say "check: import rules"
go test ./internal/importrules
say "check: shell scripts"
check_shell
say "check: everything is in order"
