# Shared by the scripts of this folder: sourced, not run. Plain POSIX shell.

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)

say() { printf '\033[1m==> %s\033[0m\n' "$*"; }
fail() {
    printf 'error: %s\n' "$1" >&2
    [ $# -lt 2 ] || printf 'hint: %s\n' "$2" >&2
    exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }

# as_root COMMAND...: runs it as root, with sudo where that is needed.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif have sudo; then
        sudo "$@"
    else
        fail "root is needed to run: $*" "install sudo, or run this script as root"
    fi
}

# need PROGRAM PACKAGE...: installs the Debian packages when the program is missing.
need() {
    program=$1
    shift
    have "$program" && return 0
    have apt-get || fail "$program is missing" "install it; only Debian and its relatives are done for you"
    say "Installing $*"
    if [ -z "${apt_updated:-}" ]; then
        as_root apt-get update -qq
        apt_updated=yes
    fi
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends -qq "$@"
}

docker_answers() { docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }

# wait_for_docker: until the engine answers, at most half a minute; it tells nobody when it is there.
wait_for_docker() {
    tries=0
    until docker_answers; do
        tries=$((tries + 1))
        [ "$tries" -lt 60 ] || return 1
        sleep 0.5
    done
}

# ensure_docker: installs Docker Engine when there is none, and starts it when it does not answer.
ensure_docker() {
    have docker && docker_answers && return 0
    if [ -n "${DOCKER_HOST:-}" ]; then
        fail "Docker at $DOCKER_HOST does not answer" "start it, or unset DOCKER_HOST"
    fi
    need dockerd docker.io
    need docker docker-cli
    docker_answers && return 0
    say "Starting Docker"
    if [ -d /run/systemd/system ]; then
        as_root systemctl start docker
    else
        as_root sh -c 'service docker start >/dev/null 2>&1 || (nohup dockerd >/var/log/dockerd.log 2>&1 &)'
    fi
    if [ "$(id -u)" -ne 0 ] && ! id -nG | grep -qw docker && [ -e /var/run/docker.sock ] && ! [ -w /var/run/docker.sock ]; then
        fail "no permission to use Docker" "sudo usermod -aG docker $(id -un), log in anew, and run this script again"
    fi
    wait_for_docker || fail "Docker does not answer" "look at: journalctl -u docker, or /var/log/dockerd.log"
}

# ensure_debian [SUITE]: names an image with Debian SUITE (default trixie) in it in $debian. One that is there, else the registry's,
# else one made from Debian's packages; `minik cluster create` uses the same names.
ensure_debian() {
    suite=${1:-trixie}
    for debian in "minik/debian:$suite" "debian:$suite-slim"; do
        docker image inspect "$debian" >/dev/null 2>&1 && return 0
    done
    docker pull --quiet "$debian" >/dev/null 2>&1 && return 0
    need mmdebstrap mmdebstrap
    say "No registry can be reached: making Debian from its packages"
    debian=minik/debian:$suite
    mmdebstrap --quiet --variant=minbase --format=tar "$suite" - | docker import - "$debian" >/dev/null
}
