# The simulated cluster: one process, no Docker. Sourced by start.sh after
# lib.sh.
# shellcheck shell=bash disable=SC2154,SC2034

sim_start() { # <cluster>
  local dir master agent marathon
  dir=$(sim_dir "$1")
  need_curl
  if sim_running "$1"; then
    say "The simulated cluster \"$1\" runs already."
    sim_show "$1"
    return
  fi
  if engine_answers && cluster_exists "$1"; then
    fail "there is a cluster \"$1\" on the Docker engine: ./start.sh $1 --down removes it, or choose another name"
  fi
  sim_binary
  mkdir -p "$dir/work"
  master=$(free_port 5050) agent=$(free_port 5051) marathon=$(free_port 8080)
  say "Starting the simulated cluster \"$1\": any image \"runs\", nothing real does, and there is no Consul."
  # The master, the agent and Marathon in one process, state in the folder.
  setsid_or_not "$root/dist/mesopool" up --provider memory --cluster "$1" --work-dir "$dir/work" \
    --master-port "$master" --agent-port "$agent" --marathon-port "$marathon" >"$dir/log" 2>&1 </dev/null &
  echo $! >"$dir/pid"
  printf '127.0.0.1:%s 127.0.0.1:%s\n' "$master" "$marathon" >"$dir/ports"
  sim_wait "$1" Mesos "http://127.0.0.1:$master/health"
  sim_wait "$1" Marathon "http://127.0.0.1:$marathon/v2/info"
  sim_show "$1"
}

# setsid_or_not detaches from the terminal where the system can.
setsid_or_not() {
  if have setsid; then exec setsid "$@"; else exec nohup "$@"; fi
}

sim_binary() {
  if find_go; then
    say "Building mesopool."
    (cd "$root" && CGO_ENABLED=0 GOWORK=off go build -buildvcs=false -trimpath -ldflags="-s -w" -o dist/mesopool ./cmd/mesopool) >&2 ||
      fail "mesopool did not build: the messages above say why"
  elif [ ! -x "$root/dist/mesopool" ]; then
    need_go
  fi
}

free_port() { # <wish>
  local port=$1
  while port_taken "$port"; do port=$((port + 10)); done
  printf '%s\n' "$port"
}

sim_wait() { # <cluster> <name> <url>
  local begin=$SECONDS
  printf '  waiting for %s ' "$2"
  until answers "$3"; do
    if ! sim_running "$1" || [ $((SECONDS - begin)) -ge 30 ]; then
      printf '\n'
      tail -15 "$(sim_dir "$1")/log" >&2
      sim_down "$1" >/dev/null
      fail "$2 does not answer: above are the last lines that the simulated cluster wrote"
    fi
    printf '.'
    sleep 0.3
  done
  printf ' ok\n'
}

sim_show() { # <cluster>
  local master marathon
  read -r master marathon <"$(sim_dir "$1")/ports"
  cat <<EOF

The simulated cluster "$1" is running.

  Mesos     http://$master
  Marathon  http://$marathon

Next steps, to copy:

  eval "\$(bash env.sh $1)"
  curl -H 'Content-Type: application/json' -d @compose/tasks/hello.json "http://\$MARATHON/v2/apps"
  curl "http://\$MARATHON/v2/apps/hello/tasks"

  ./start.sh $1 --down ends it.
EOF
  open_browser "http://$marathon" "http://$master"
}

sim_status() { # <cluster>
  local master marathon
  read -r master marathon <"$(sim_dir "$1")/ports"
  say "Simulated cluster \"$1\": Mesos at http://$master, Marathon at http://$marathon, log in $(sim_dir "$1")/log"
}

sim_down() { # <cluster>
  local pid i
  if sim_running "$1"; then
    pid=$(cat "$(sim_dir "$1")/pid")
    kill "$pid" 2>/dev/null || true
    for ((i = 0; i < 50; i++)); do
      if ! kill -0 "$pid" 2>/dev/null; then break; fi
      sleep 0.1
    done
    kill -9 "$pid" 2>/dev/null || true
  fi
  rm -rf "$(sim_dir "$1")"
  say "The simulated cluster \"$1\" is gone."
}
