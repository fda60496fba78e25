# Installs what a script needs and this machine lacks, from Debian's packages; the scripts that do so source this file.
# shellcheck shell=bash
PATH="$PATH:/usr/sbin:/sbin:$HOME/.cargo/bin"

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

missing=()
# need PACKAGE COMMAND…: the package is missing unless the command succeeds.
need() {
    "${@:2}" >/dev/null 2>&1 || missing+=("$1")
}

install_missing() {
    [ "${#missing[@]}" -gt 0 ] || return 0
    echo "$0: installing ${missing[*]}" >&2
    as_root apt-get update -q >&2
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}" >&2
    # The scripts start their own servers; the ones that the installation has just started only hold ports.
    local package
    for package in "${missing[@]}"; do
        case "$package" in
            haproxy | nginx | prometheus | redis-server) as_root service "$package" stop >&2 || true ;;
        esac
    done
}
