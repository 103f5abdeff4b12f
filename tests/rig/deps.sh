#!/usr/bin/env bash
# Installs what is missing on this machine: Debian packages, Kafka's jars and the Python packages of the tests.
set -euo pipefail
cd "$(dirname "$0")/../.."

PACKAGES=(gcc make pkg-config curl librdkafka-dev libcurl4-openssl-dev libjansson-dev libpq-dev libmicrohttpd-dev
    libssl-dev openssl libjq-dev libcmocka-dev clang libclang-rt-dev clang-format clang-tidy cppcheck shellcheck mandoc postgresql python3 python3-venv
    maven kcat)
PYTHON_PACKAGES=(pytest pytest-xdist 'psycopg[binary]' confluent-kafka cloudevents standardwebhooks requests
    authlib flask trustme hypercorn)

say() { printf 'deps: %s\n' "$*" >&2; }

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

missing_packages() {
    local package
    for package in "${PACKAGES[@]}"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q ' installed$' || echo "$package"
    done
}

install_packages() {
    local missing
    mapfile -t missing < <(missing_packages)
    [ ${#missing[@]} -eq 0 ] && return
    command -v apt-get >/dev/null || { say "install these with your package manager: ${missing[*]}"; exit 111; }
    say "installing ${missing[*]}"
    # The rig makes clusters of its own: Debian's default one would only take memory and a port.
    as_root mkdir -p /etc/postgresql-common
    [ -e /etc/postgresql-common/createcluster.conf ] ||
        echo 'create_main_cluster = false' | as_root tee /etc/postgresql-common/createcluster.conf >/dev/null
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -q update >&2
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends "${missing[@]}" >&2
}

# A stamp says that the pom's version is complete: a copy that was cut off is made again.
install_kafka() {
    local stamp
    stamp=build/kafka/$(cksum <tests/rig/kafka/pom.xml | tr ' ' -)
    [ -e "$stamp" ] && return
    [ -n "${RIG_KAFKA_DIR:-}" ] && compgen -G "$RIG_KAFKA_DIR/kafka_2.13-*.jar" >/dev/null && return
    say 'fetching Kafka (54 MB)'
    rm -rf build/kafka
    mkdir -p build/kafka
    # Maven resets the terminal's colours four times, on a file too.
    mvn -q -B -f tests/rig/kafka/pom.xml dependency:copy-dependencies -DincludeScope=runtime \
        -DoutputDirectory="$PWD/build/kafka" 2>&1 | sed 's/\x1b\[0m//g' >&2
    touch "$stamp"
}

install_python() {
    local stamp
    stamp=build/venv/$(printf '%s ' "${PYTHON_PACKAGES[@]}" "$(python3 --version)" "$PWD" | cksum | tr ' ' -)
    [ -e "$stamp" ] && return
    say 'making build/venv'
    rm -rf build/venv
    python3 -m venv build/venv
    build/venv/bin/pip -q install "${PYTHON_PACKAGES[@]}" >&2
    touch "$stamp"
}

# promtool checks /metrics. Unpacked, not installed: Debian's package would start a server.
install_promtool() {
    [ -x build/promtool/usr/bin/promtool ] && return
    say 'unpacking promtool'
    rm -rf build/promtool
    mkdir -p build/promtool
    (cd build/promtool && apt-get -q -o APT::Sandbox::User="$(id -un)" download prometheus >&2 && dpkg -x prometheus_*.deb . && rm prometheus_*.deb)
}

mkdir -p build
install_packages
install_promtool
install_kafka
install_python
say 'everything is there'
