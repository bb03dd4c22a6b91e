#!/usr/bin/env bash
# Runs whole clusters on the Docker engine, as a user would, and checks what a
# user would see: start.sh, the sample apps, replacement, scaling, removal, and
# that clusters leave one another and strangers alone. Cleans up after itself.
#
#   scripts/e2e.sh              clusters on the engine itself
#   scripts/e2e.sh --endpoint   teams behind an endpoint, and that they cannot
#                               get at one another
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
. "$root/scripts/lib.sh"
. "$root/scripts/cluster.sh"
cd "$root"

team=false a=e2e-a b=e2e-b stranger=mesopool-e2e-stranger
case ${1:-} in
  "") ;;
  --endpoint) team=true a=ep-a b=ep-b stranger=mesopool-ep-stranger ;;
  *) fail "\"$1\" is no argument of scripts/e2e.sh; it takes --endpoint" ;;
esac
east=mesopool-e2e-east datacenter="" passed=0 failed=0 tagged=false
log=$(mktemp)

# ---- the harness -----------------------------------------------------------

# expect waits until a command succeeds, and counts.
expect() { # <what> <seconds> <command...>
  local what=$1 seconds=$2 begin=$SECONDS
  shift 2
  until "$@" >"$log" 2>&1; do
    if [ $((SECONDS - begin)) -ge "$seconds" ]; then
      failed=$((failed + 1))
      say "FAIL  $what (not within $seconds s)"
      tail -15 "$log" | sed 's/^/      /'
      explain
      return 0
    fi
    sleep 0.3
  done
  passed=$((passed + 1))
  say "ok    $what ($((SECONDS - begin)) s)"
}

# must is expect for what everything after it needs.
must() { # <what> <seconds> <command...>
  local before=$failed
  expect "$@"
  if [ "$failed" != "$before" ]; then finish; fi
}

finish() {
  say "$passed passed, $failed failed"
  if [ "$failed" = 0 ]; then exit 0; else exit 1; fi
}

# explain shows what may tell why something failed.
explain() {
  docker ps -a --format '      {{.Names}}  {{.Status}}  {{.Ports}}' | head -20
  local role
  for role in agent marathon; do
    say "      the last lines of $role in $a:"
    docker logs --tail 8 "$(role_container "$a" "$role")" 2>&1 | sed 's/^/      /' || true
  done
}

cleanup() {
  stop_datacenter
  docker rm -f -v "$stranger" "$east" >/dev/null 2>&1 || true
  ./start.sh "$a" --down >/dev/null 2>&1 || true
  ./start.sh "$b" --down >/dev/null 2>&1 || true
  if $tagged; then docker rmi nginx:latest >/dev/null 2>&1 || true; fi
  rm -rf "$log" "$log.certs" "$log.stolen" "$log.east" "$log.dc"
}

# use sets MARATHON, MESOS_MASTER and CONSUL; docker stays that of the engine.
use() {
  eval "$(bash env.sh "$1")"
  leave_team_view
}

# view is docker as the cluster's owners have it.
view() { # <cluster> <arguments...>
  if $team; then
    team_docker "$@"
  else
    shift
    docker "$@"
  fi
}

# up starts a cluster, or starts it again.
up() { # <cluster>
  if $team; then ./start.sh "$1" --endpoint --no-open; else ./start.sh "$1" --no-open; fi
}

# api calls Marathon and fails on an error status.
api() { # <method> <path> [JSON or @file]
  if [ $# -gt 2 ]; then
    curl --noproxy '*' -fsS --max-time 20 -X "$1" -H 'Content-Type: application/json' -d "$3" "http://$MARATHON$2"
  else
    curl --noproxy '*' -fsS --max-time 20 -X "$1" "http://$MARATHON$2"
  fi
}

# ---- what to look at -------------------------------------------------------

# tasks lists the running task containers of a cluster, of one image if given.
tasks() { # <cluster> [image]
  view "$1" ps --no-trunc --filter "label=$TASK_LABEL=$1" --format '{{.ID}} {{.Image}}' |
    awk -v image="${2:-}" 'image == "" || $2 == image { print $1 }' | sort
}

count() { [ "$(tasks "$1" "$3" | grep -c .)" = "$2" ]; } # <cluster> <n> <image>
no_leftover() { [ -z "$(view "$1" ps -aq --filter "label=$TASK_LABEL=$1")" ]; }
same_tasks() { [ "$(tasks "$1")" = "$2" ]; }

# address is that of a container of the cluster; Triton tells no networks.
address() { # <cluster> <container>
  if $team; then
    team_docker "$1" inspect --format '{{.NetworkSettings.IPAddress}}' "$2"
  else
    docker inspect --format '{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}' "$2" | awk '{ print $1 }'
  fi
}

# all_answer asks each task container of an image on its own address.
all_answer() { # <cluster> <image>
  local id
  for id in $(tasks "$1" "$2"); do answers "http://$(address "$1" "$id")/" || return 1; done
}

lower_case_names() {
  ! view "$1" ps -a --filter "label=$TASK_LABEL=$1" --format '{{.Names}}' | grep -q '[A-Z]'
}

nothing_published() {
  ! view "$1" ps --filter "label=$TASK_LABEL=$1" --format '{{.Ports}}' | grep -q -e '->'
}

# passing checks that Consul has so many instances whose checks pass.
passing() { # <service> <n> [tag]
  local found
  found=$(curl --noproxy '*' -fsS --max-time 5 "http://$CONSUL/v1/health/service/$1?passing=1${3:+&tag=$3}") || return 1
  [ "$(printf '%s' "$found" | grep -o '"Service":{' | grep -c .)" = "$2" ]
}

agents_of() { curl --noproxy '*' -fsS --max-time 5 "http://$MESOS_MASTER/slaves" | grep -o '"active": *true' | grep -c .; }
one_agent() { [ "$(agents_of)" = 1 ]; }

replaced() { # <cluster> <image> <old id>
  local now
  now=$(tasks "$1" "$2")
  [ -n "$now" ] && [ "$now" != "$3" ] && all_answer "$1" "$2"
}

stranger_lives() { [ "$(docker inspect --format '{{.State.Running}} {{.RestartCount}}' "$stranger")" = "true 0" ]; }

nothing_of() { # <cluster>
  ! cluster_exists "$1" && [ -z "$(cluster_volumes "$1")" ]
}

# part is the container of a role, or of the endpoint.
part() { # <cluster> <role>
  if [ "$2" = endpoint ]; then endpoint_container; else role_container "$1" "$2"; fi
}

role_runs() { # <cluster> <role> <other pid than>
  local pid
  pid=$(docker inspect --format '{{.State.Pid}}' "$(part "$1" "$2")")
  [ "$pid" != 0 ] && [ "$pid" != "$3" ]
}

# refuses checks that a command fails with one line that has the words in it.
refuses() { # <words> <command...>
  local words=$1 out
  shift
  if out=$("$@" 2>&1 >/dev/null); then return 1; fi
  printf '%s\n' "$out"
  [ "$(printf '%s\n' "$out" | grep -c .)" = 1 ] && [[ $out == *"$words"* ]]
}

# ---- the story -------------------------------------------------------------

test_bad_input() {
  expect "a bad name is refused" 1 refuses '"Team_A"' ./start.sh Team_A
  expect "a long name is refused" 1 refuses '31 characters' ./start.sh "$(printf '%031d' 1)"
  expect "an unknown option is refused" 1 refuses '"--nonsense"' ./start.sh --nonsense
  expect "an engine that is not there is told" 10 refuses 'tcp://127.0.0.1:1' env DOCKER_HOST=tcp://127.0.0.1:1 ./start.sh "$a"
  expect "env.sh says that there is no such cluster" 1 refuses '"no-such"' bash env.sh no-such
  expect "so does start.sh --status" 1 refuses '"no-such"' ./start.sh no-such --status
  expect "removing what is not there is harmless" 1 ./start.sh no-such --down
  expect "a team whose name is no login is refused" 1 refuses '"1team"' ./start.sh 1team --endpoint
  expect "so is a simulated team" 1 refuses 'do not go together' ./start.sh "$a" --endpoint --sim
}

test_start() {
  local roles
  must "start.sh brings a cluster up" 1 up "$a"
  use "$a"
  docker run -d --name "$stranger" mesopool/hello:demo >/dev/null
  roles=$(role_containers "$a" | sort)
  expect "running start.sh again is harmless" 1 ./start.sh "$a" --no-open
  expect "the same containers run" 1 test "$roles" = "$(role_containers "$a" | sort)"
  expect "the roles themselves are in Consul" 30 passing mesos 1
  expect "the agent is in Consul" 30 passing mesos-agent 1
  expect "Marathon is in Consul" 30 passing marathon 1
}

prints() { # <text> <command...>
  local text=$1
  shift
  "$@" 2>&1 | grep -e "$text"
}

test_hello() {
  local old
  must "Marathon takes hello.json" 1 api POST /v2/apps @compose/tasks/hello.json
  expect "its container runs" 30 count "$a" 1 mesopool/hello:demo
  expect "it answers on its own address" 15 all_answer "$a" mesopool/hello:demo
  expect "container names are lower case" 1 lower_case_names "$a"
  expect "no port of the host is published" 1 nothing_published "$a"
  expect "Consul lists it with a passing check" 30 passing hello 1
  must "the command line builds" 60 env CGO_ENABLED=0 go build -o dist/e2e-mesopool ./cmd/mesopool
  expect "task logs shows what it wrote" 5 prints 'serves at http' dist/e2e-mesopool task logs hello.instance
  expect "task exec runs a command in it" 5 prints 'Hello from' dist/e2e-mesopool task exec hello.instance -- /program who
  old=$(tasks "$a" mesopool/hello:demo)
  view "$a" kill "$old" >/dev/null || true
  expect "a killed container is replaced within seconds" 15 replaced "$a" mesopool/hello:demo "$old"
  expect "Consul lists the replacement only" 30 passing hello 1
}

test_scale() {
  expect 'PUT {"instances": 5}' 1 api PUT /v2/apps/hello '{"instances": 5}'
  expect "scaled to 5" 60 count "$a" 5 mesopool/hello:demo
  expect "all 5 answer" 15 all_answer "$a" mesopool/hello:demo
  expect "Consul lists all 5" 30 passing hello 5
  expect 'PUT {"instances": 2}' 1 api PUT /v2/apps/hello '{"instances": 2}'
  expect "scaled to 2" 60 count "$a" 2 mesopool/hello:demo
  expect "Consul lists 2" 30 passing hello 2
  expect "the audit finds that all parts agree" 60 audit
}

# test_autoscale keeps an instance busy for a while: a second one comes, and goes
# when both are idle.
test_autoscale() {
  local burner app='{"id":"/busy","cpus":0.1,"mem":32,"container":{"type":"DOCKER","docker":{"image":"mesopool/hello:demo"}},
    "autoscale":{"minInstances":1,"maxInstances":2,"cpu":0.5,"cooldownSeconds":0,"scaleDownAfterSeconds":20}}'
  expect "Marathon takes an app that scales by itself" 1 api POST /v2/apps "$app"
  expect "it has one instance" 30 has_tasks busy 1
  expect "what it uses is measured" 60 prints 'autoscale: cpu is 0.* on average' api GET /v2/apps/busy
  dist/e2e-mesopool task exec busy.instance -- /program burn 90s >/dev/null 2>&1 &
  burner=$!
  expect "a busy one gets another beside it" 80 has_tasks busy 2
  expect "the audit trail says why" 1 prints '"user":"autoscale".*cpu is .* from 1 to 2 instances' api GET '/v2/audit?id=/busy'
  wait "$burner" || true
  expect "which goes when both are idle" 120 has_tasks busy 1
  expect "DELETE of the app" 1 api DELETE '/v2/apps/busy?force=true'
  expect "it stops" 30 count "$a" 2 mesopool/hello:demo
}

has_tasks() { [ "$(api GET "/v2/apps/$1/tasks" | grep -o '"state":"TASK_RUNNING"' | grep -c .)" = "$2" ]; } # <app> <n>

# audit sees the containers as the cluster's owners do.
audit() { if $team; then in_view dist/e2e-mesopool audit --cluster "$a"; else dist/e2e-mesopool audit --cluster "$a"; fi; }

# test_nginx posts the definition of 2015 as it is. Where no registry can give
# nginx, another web server lends itself to that name for the time being.
test_nginx() {
  if ! docker image inspect nginx:latest >/dev/null 2>&1 && ! bounded 60 docker pull -q nginx:latest >/dev/null 2>&1; then
    docker tag mesopool/hello:demo nginx:latest
    tagged=true
  fi
  expect "Marathon takes the nginx.json of 2015" 1 api POST /v2/apps @compose/tasks/nginx.json
  expect "nginx answers on its own address" 30 nginx_answers
  expect "no port of the host is published for it" 1 nothing_published "$a"
  expect "Consul lists nginx with a passing check" 30 passing nginx 1
  expect "DELETE of nginx" 1 api DELETE /v2/apps/nginx
  expect "nginx stops" 30 no_nginx
}

# nginx_containers go by the name of the image that they were made from.
nginx_containers() {
  view "$a" ps --filter "label=$TASK_LABEL=$a" --format '{{.ID}} {{.Image}}' | awk '$2 ~ /^nginx(:latest)?$/ { print $1 }'
}

no_nginx() { [ -z "$(nginx_containers)" ]; }

nginx_answers() {
  local id
  id=$(nginx_containers)
  [ -n "$id" ] && answers "http://$(address "$a" "$id")/"
}

test_sample() {
  expect "Marathon takes sample-nats.json" 1 api POST /v2/apps @compose/tasks/sample-nats.json
  expect "three nodes run" 60 count "$a" 3 mesopool/nats-node:demo
  expect "Consul lists them with passing checks" 60 passing nats 3 cluster
  expect "Marathon takes the load generator" 1 api POST /v2/apps @compose/tasks/sample-load.json
  expect "it runs" 60 count "$a" 1 mesopool/nats-load:demo
  expect "messages go through the cluster" 60 messages_flow
}

messages_flow() {
  local id
  id=$(tasks "$a" mesopool/nats-load:demo | head -1)
  view "$a" logs "$id" 2>&1 | grep -q '[1-9][0-9]* messages/s'
}

# test_crashes kills each role the hard way: whatever ran, runs on.
test_crashes() {
  local role pid before roles="agent master marathon"
  if [ ! -d "/proc/$(docker inspect --format '{{.State.Pid}}' "$(role_container "$a" agent)")" ] || ! is_root; then
    say "SKIPPED: killing roles needs root on the engine's machine"
    return
  fi
  before=$(tasks "$a")
  if $team; then roles="$roles endpoint"; fi
  for role in $roles; do
    pid=$(docker inspect --format '{{.State.Pid}}' "$(part "$a" "$role")")
    kill -9 "$pid"
    expect "$role comes back after kill -9" 30 role_runs "$a" "$role" "$pid"
    expect "the agent is registered" 60 one_agent
    sleep 3
    expect "no task was lost, none runs twice" 5 same_tasks "$a" "$before"
  done
  expect "Marathon answers" 30 api GET /v2/apps
  expect 'PUT {"instances": 3}' 1 api PUT /v2/apps/hello '{"instances": 3}'
  expect "scaling works after all that" 60 count "$a" 3 mesopool/hello:demo
}

test_two_clusters() {
  local before
  before=$(tasks "$a")
  must "a second cluster comes up beside it" 1 up "$b"
  use "$b"
  expect "it has one agent, its own" 30 one_agent
  expect "it takes hello.json" 1 api POST /v2/apps @compose/tasks/hello.json
  expect "its container runs" 30 count "$b" 1 mesopool/hello:demo
  expect "its Consul knows only its own" 30 passing hello 1
  expect "the first cluster is untouched" 1 same_tasks "$a" "$before"
  use "$a"
  expect "the first cluster has one agent, its own" 1 one_agent
}

dead_certs() { DOCKER_HOST=tcp://$(endpoint_address) DOCKER_TLS_VERIFY=1 DOCKER_CERT_PATH=$1 docker ps; }

test_removal() {
  expect "DELETE /v2/apps/sample/load" 1 api DELETE /v2/apps/sample/load
  expect "DELETE /v2/apps/sample/nats" 1 api DELETE /v2/apps/sample/nats
  expect "DELETE /v2/apps/hello" 1 api DELETE /v2/apps/hello
  expect "DELETE leaves no container, stopped ones included" 120 no_leftover "$a"
  expect "and nothing in Consul" 30 passing hello 0
  if $team; then cp -r "$(team_dir "$a")/certs" "$kept"; fi
  expect "start.sh --down" 1 ./start.sh "$a" --down
  if $team; then expect "the account's certificates are worth nothing from then on" 1 refuses Unauthorized dead_certs "$kept"; fi
  expect "nothing of the cluster is left" 1 nothing_of "$a"
  expect "the second cluster's task runs on" 1 count "$b" 1 mesopool/hello:demo
  use "$b"
  expect "the second cluster answers" 1 api GET /v2/apps/hello
  expect "the stranger runs on" 1 stranger_lives
  expect "start.sh --down with a task running" 1 ./start.sh "$b" --down
  expect "nothing of the second cluster is left" 1 nothing_of "$b"
  expect "the stranger runs on still" 1 stranger_lives
  if $team && ! $endpoint_before; then expect "the endpoint went with its last team" 1 test -z "$(docker ps -aq --filter "name=^$ENDPOINT")"; fi
}

# ---- isolation -------------------------------------------------------------

# test_isolation tries to get from the second team at the first, with all that
# the second has: its certificates, and commands in its containers.
test_isolation() {
  local mine victim engine name handle before where
  before=$(tasks "$a") mine=$(tasks "$b" mesopool/hello:demo) victim=$(tasks "$a" mesopool/hello:demo | head -1)
  name=$(team_docker "$a" inspect --format '{{.Name}}' "$victim")
  engine=$(docker ps -q --no-trunc --filter "name=^$ENDPOINT\\..*\\.${name#/}\$")
  where=$(address "$a" "$victim")
  expect "the team's docker shows its containers and no others" 1 test "$mine" = "$(team_docker "$b" ps -aq --no-trunc)"
  for handle in "$victim" "${name#/}" "$engine" "$ENDPOINT" "$(role_container "$a" agent)"; do
    expect "the other team's ${handle:0:20} is nowhere for it" 10 cannot_touch "$b" "$handle"
  done
  expect "it cannot join what is the other team's" 10 cannot_join "$b" "$name" "$engine"
  expect "it cannot reach the engine's host" 10 cannot_escape "$b"
  expect "its containers reach their own team" 10 reaches "$b" "$mine" "http://$(address "$b" "$mine")/"
  expect "and not the other team's tasks" 1 unreachable "$b" "$mine" "http://$where/"
  expect "nor its Marathon" 1 unreachable "$b" "$mine" "http://$(role_address "$a" marathon):8080/v2/apps"
  expect "nor by name" 1 unreachable "$b" "$mine" "http://${name#/}/"
  expect "the endpoint passes nothing on between teams" 1 passes_nothing_on
  expect "the agent has no access to the engine" 1 agent_has_no_engine "$a"
  expect "after all that, the other team's tasks are the same" 1 same_tasks "$a" "$before"
  expect "and have not been started again" 1 test 0 = "$(docker inspect --format '{{.RestartCount}}' "$engine")"
}

# nowhere checks that a command says that there is no such container.
nowhere() { # <command...>
  local out
  out=$("$@" 2>&1 </dev/null) || true # "rm -f" succeeds for what is not there
  case $out in
    *"(ResourceNotFound) No such container"*) ;;
    *) printf '%s: %s\n' "$*" "$out" && return 1 ;;
  esac
}

cannot_touch() { # <team> <container>
  local order
  for order in "inspect --type container" logs top stop kill restart "rm -f" "exec" wait port stats\ --no-stream; do
    # shellcheck disable=SC2086 # words
    case $order in
      exec) nowhere team_docker "$1" exec "$2" /program who || return 1 ;;
      *) nowhere team_docker "$1" $order "$2" || return 1 ;;
    esac
  done
  nowhere team_docker "$1" rename "$2" taken && nowhere team_docker "$1" cp "$2:/program" "$log.stolen"
}

# fails checks that docker create fails, and leaves nothing.
fails() { # <team> <flags...>
  local owner=$1
  shift
  if team_docker "$owner" create --name attempt "$@" mesopool/hello:demo; then
    team_docker "$owner" rm -f attempt
    return 1
  fi
  [ -z "$(team_docker "$owner" ps -aq --filter name=attempt)" ]
}

cannot_join() { # <team> <name> <engine's ID>
  local network
  network=$(docker inspect --format '{{range $name, $_ := .NetworkSettings.Networks}}{{$name}}{{end}}' "$3")
  fails "$1" --link "${2#/}:other" && fails "$1" --link "$3:other" && fails "$1" --volumes-from "${2#/}" &&
    fails "$1" --volumes-from "$3" && fails "$1" --network "$network" && fails "$1" --network "container:$3"
}

cannot_escape() { # <team>
  fails "$1" --network host && fails "$1" -v /var/run/docker.sock:/var/run/docker.sock && fails "$1" -v /:/host && without_privileges "$1"
}

# without_privileges: what Triton ignores has no effect on the engine either.
without_privileges() { # <team>
  local got
  team_docker "$1" create --name attempt --privileged --pid host --ipc host --cap-add SYS_ADMIN --security-opt apparmor=unconfined mesopool/hello:demo
  got=$(docker ps -aq --filter "name=^$ENDPOINT\\..*\\.attempt\$" |
    xargs docker inspect --format '{{.HostConfig.Privileged}} {{.HostConfig.PidMode}} {{.HostConfig.CapAdd}} {{.HostConfig.SecurityOpt}} {{.Mounts}}')
  team_docker "$1" rm -f attempt
  printf '%s\n' "$got"
  [ "$got" = "false  [] [] []" ]
}

reaches() { team_docker "$1" exec "$2" /program get "$3" | grep -q Hello; } # <team> <container> <url>

# unreachable: the command runs, and what it asks for does not answer.
unreachable() { # <team> <container> <url>
  local out
  if out=$(team_docker "$1" exec "$2" /program get "$3" 2>&1); then
    printf '%s\n' "$out"
    return 1
  fi
  printf '%s\n' "$out"
  [[ $out == *"hello: Get"* ]]
}

role_address() { docker inspect --format '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' "$(role_container "$1" "$2")"; }

passes_nothing_on() { [ "$(docker inspect --format '{{index .HostConfig.Sysctls "net.ipv4.ip_forward"}}' "$ENDPOINT")" = 0 ]; }

# agent_has_no_engine: neither a socket nor an address, only a volume of its own
# with certificates.
agent_has_no_engine() { # <team>
  local id
  id=$(role_container "$1" agent)
  docker inspect --format '{{json .Mounts}} {{json .Config.Env}}' "$id"
  [ -z "$(docker inspect --format '{{range .Mounts}}{{if ne .Type "volume"}}{{.Source}}{{end}}{{end}}' "$id")" ] &&
    docker inspect --format '{{json .Config.Env}}' "$id" | grep -q '"DOCKER_HOST=tcp://endpoint:2376"'
}

# test_places gives the first team an agent for a further data center, which is
# simulated: an endpoint of its own, at an address that all reach.
test_places() {
  local gateway apps
  gateway=$(docker network inspect --format '{{(index .IPAM.Config 0).Gateway}}' bridge)
  mkdir -p "$log.east"
  docker run -d --name "$east" --publish "$gateway::2376" mesopool/mesopool:local endpoint --state=/state --ip=0.0.0.0 --hostname="$gateway" >/dev/null
  expect "a further data center is there" 10 docker exec "$east" /mesopool endpoint account add agents --state=/state
  docker cp "$east:/state/accounts/agents/certs/." "$log.east" >/dev/null
  echo "export DOCKER_HOST=tcp://$(docker port "$east" 2376 | head -1)" >"$log.east/env.sh"
  expect "start-agents.sh starts an agent for it" 5 scripts/start-agents.sh "$a" "$log.east=us-east/us-east-1"
  expect "running it again is harmless" 5 scripts/start-agents.sh "$a" "$log.east=us-east/us-east-1"
  expect "the cluster has two agents" 30 two_agents
  apps='{"id":"/east","cmd":"sleep infinity","instances":2,"cpus":0.1,"mem":32,"container":{"type":"DOCKER","docker":{"image":"any"}},"constraints":[["zone","CLUSTER","us-east-1"]]}'
  expect "an app is bound to the further data center" 1 api POST /v2/apps "$apps"
  expect "its tasks run there" 30 there 2
  expect "start-agents.sh --remove" 10 scripts/start-agents.sh "$a" --remove
  expect "nothing of the cluster runs there any more" 1 there 0
  expect "DELETE of the app" 1 api DELETE '/v2/apps/east?force=true'
}

# test_triton has a whole cluster on a data center: an endpoint of this machine,
# with the engine behind it, plays the Triton.
test_triton() {
  local gateway consul
  if [ ! -d "/proc/$(docker inspect --format '{{.State.Pid}}' "$stranger")" ]; then
    say "SKIPPED: a cluster on a data center needs the engine's machine"
    return
  fi
  gateway=$(docker network inspect --format '{{(index .IPAM.Config 0).Gateway}}' bridge)
  consul=$(docker inspect --format '{{.Config.Image}}' "$(role_container "$a" consul)")
  mkdir -p "$log.dc"
  dist/e2e-mesopool endpoint account add cloud --state="$log.dc/state" --certs="$log.dc/profile" '--image=*' >/dev/null
  dist/e2e-mesopool endpoint --state="$log.dc/state" --backend=engine --name=e2e-dc --ip="$gateway" --port=0 --cloudapi-port=0 >"$log.dc/out" 2>&1 &
  datacenter=$!
  expect "a data center is there" 10 knows_port
  echo "export DOCKER_HOST=tcp://$gateway:$(knows_port)" >"$log.dc/profile/env.sh"
  export MESOPOOL_TRITON_IMAGE=mesopool/mesopool:local MESOPOOL_CONSUL_IMAGE=$consul
  expect "start.sh --triton brings a cluster up on it" 1 ./start.sh dc --triton="$log.dc/profile" --no-open
  unset MESOPOOL_TRITON_IMAGE MESOPOOL_CONSUL_IMAGE
  expect "running it again is harmless" 1 ./start.sh dc --triton="$log.dc/profile" --no-open
  expect "--status finds its parts" 1 prints 'marathon *running *answers' ./start.sh dc --triton="$log.dc/profile" --status
  eval "$(bash env.sh dc --triton="$log.dc/profile")"
  expect "it has one agent" 10 one_agent
  expect "it takes hello.json" 1 api POST /v2/apps @compose/tasks/hello.json
  expect "its container runs, with a public address" 60 prints '0.0.0.0:80->80' dc_docker ps --filter "label=$TASK_LABEL=dc"
  expect "Consul lists it with a passing check" 30 passing hello 1
  expect "start.sh --down" 1 ./start.sh dc --triton="$log.dc/profile" --down
  expect "nothing of the account is left" 1 test -z "$(dc_docker ps -aq)"
  stop_datacenter
  use "$a"
}

knows_port() { sed -n 's/.*advertised=[^ ]*:\([0-9]*\).*backend=.*/\1/p' "$log.dc/out" | grep .; }
dc_docker() { (find_place "$log.dc/profile" && read_place && place_docker "$@"); }

stop_datacenter() {
  if [ -z "$datacenter" ]; then return 0; fi # in a trap, return alone would repeat the exit's status
  kill "$datacenter" 2>/dev/null || true
  wait "$datacenter" 2>/dev/null || true
  datacenter=""
  docker ps -aq --filter label=mesopool.endpoint=e2e-dc | remove_containers
  docker network ls -q --filter label=mesopool.endpoint=e2e-dc | xargs -r docker network rm >/dev/null
}

two_agents() { [ "$(agents_of)" = 2 ]; }
there() { [ "$(find_place "$log.east" && read_place && place_docker ps -aq | grep -c .)" = "$1" ]; }

# test_views: env.sh points docker at the team's view, and back.
test_views() {
  expect "env.sh points docker at what the team sees" 1 sees_own
  expect "start.sh works with that, too" 1 in_view ./start.sh "$a" --status
  expect "env.sh --unset points it back at the engine" 1 in_view eval 'eval "$(bash env.sh '"$a"' --unset)"; test -n "$(docker ps -q --filter name='"$stranger"')"'
}

in_view() { (eval "$(bash env.sh "$a")" && "$@"); }
sees_own() { [ "$(in_view docker ps -q --no-trunc | sort)" = "$(tasks "$a")" ]; }

trap cleanup EXIT
cleanup
kept=$log.certs endpoint_before=false
if [ -n "$(endpoint_container)" ]; then endpoint_before=true; fi
test_bad_input
test_start
test_hello
test_scale
test_autoscale
test_nginx
test_sample
test_crashes
test_two_clusters
if $team; then
  test_views
  test_isolation
  test_places
  test_triton
fi
test_removal
finish
