# Sourced: a container engine that runs already, or one that the program named by CONTAINER_ENGINE starts, with the base image debian:$1-slim.
start_engine() {
    local suite=$1 starter=${CONTAINER_ENGINE:-../shared/tools/container-engine}
    if docker compose version >/dev/null 2>&1 && docker info >/dev/null 2>&1; then return; fi
    [ -x "$starter" ] || { echo 'no container engine runs here, and CONTAINER_ENGINE names no program that starts one' >&2; exit 111; }
    eval "$("$starter" "${TMPDIR:-/tmp}/tandem-container-engine" "$suite")"
}
