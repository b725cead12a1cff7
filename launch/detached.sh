#!/usr/bin/env bash
# Runs one command on this machine that outlives the session it was started from. tpu_vm.sh calls this on each host.
# Usage: bash launch/detached.sh start COMMAND [ARGUMENTS...]
#        bash launch/detached.sh resume           the command of the last start again
#        bash launch/detached.sh stop [SECONDS]   SIGTERM, then waits until it has ended (300 s): training saves
#        bash launch/detached.sh status | logs [LINES] | idle (an error where it runs)
# RUN_DIR, runs/detached where it is not set, holds command, pid, log and, once it has ended, exit.
set -euo pipefail
cd "$(dirname "$0")/.."
folder="${RUN_DIR:-runs/detached}"
verb="${1:?start, resume, stop, status, logs or idle}"
shift

# A number is given again to another process: when it began tells them apart. Field 22 of /proc/PID/stat.
began() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d ' ' -f 20; }

# Whether the command of this folder runs; sets pid.
running() {
  local since
  [ -e "$folder/pid" ] && read -r pid since <"$folder/pid" && [ -n "$since" ] && [ "$(began "$pid")" = "$since" ]
}

launch() {
  if running; then
    echo "$(hostname): it already runs as process $pid: stop it first" >&2
    exit 1
  fi
  rm -f "$folder/pid" "$folder/exit"
  nohup setsid bash launch/detached.sh keep </dev/null >>"$folder/log" 2>&1 &
  for _ in $(seq 100); do
    if [ -e "$folder/pid" ]; then
      echo "$(hostname): started as process $(cut -d ' ' -f 1 "$folder/pid"), log in $PWD/$folder/log"
      return
    fi
    sleep 0.1
  done
  echo "$(hostname): nothing started within 10 s; the end of $PWD/$folder/log:" >&2
  tail -n 5 "$folder/log" >&2
  exit 1
}

case "$verb" in
  start)
    : "${1:?command}"
    mkdir -p "$folder"
    if running; then launch; fi # which says so
    printf '%s\0' "$@" >"$folder/command"
    launch
    ;;
  resume)
    if [ ! -e "$folder/command" ]; then
      echo "$(hostname): nothing was started here; a training started with the arguments it had before resumes" >&2
      exit 1
    fi
    launch
    ;;
  keep) # the process that stays: starts the command and writes down how it ended
    mapfile -d '' -t command <"$folder/command"
    printf '\n== %s:' "$(date -u +%FT%TZ)"
    printf ' %q' "${command[@]}"
    printf '\n'
    "${command[@]}" &
    pid=$!
    trap : TERM # of a machine that shuts down
    printf '%s %s\n' "$pid" "$(began "$pid")" >"$folder/pid.new"
    mv "$folder/pid.new" "$folder/pid"
    while true; do
      wait "$pid" && code=0 || code=$?
      kill -0 "$pid" 2>/dev/null || break
    done
    echo "$code" >"$folder/exit"
    ;;
  stop)
    if ! running; then
      echo "$(hostname): nothing runs"
      exit 0
    fi
    kill -TERM "$pid"
    for _ in $(seq "$((${1:-300} * 5))"); do
      if ! running; then
        echo "$(hostname): stopped"
        exit 0
      fi
      sleep 0.2
    done
    echo "$(hostname): process $pid still runs ${1:-300} s after SIGTERM; see the log" >&2
    exit 1
    ;;
  status)
    if running; then
      echo "$(hostname): runs as process $pid"
    elif [ ! -e "$folder/command" ]; then
      echo "$(hostname): nothing was started"
    else
      case "$(cat "$folder/exit" 2>/dev/null)" in
        0) echo "$(hostname): came to its end" ;;
        75) echo "$(hostname): stopped before its end; resume goes on" ;;
        "") echo "$(hostname): killed, or the machine was restarted; resume goes on" ;;
        *) echo "$(hostname): failed with exit code $(cat "$folder/exit"); see the log" ;;
      esac
    fi
    ;;
  idle)
    if running; then
      echo "$(hostname): process $pid runs: stop it first" >&2
      exit 1
    fi
    ;;
  logs)
    if [ ! -e "$folder/log" ]; then
      echo "$(hostname): nothing was started" >&2
      exit 1
    fi
    exec tail -n "${1:-100}" -F "$folder/log"
    ;;
  *)
    echo "unknown verb $verb: start, resume, stop, status, logs or idle" >&2
    exit 1
    ;;
esac
