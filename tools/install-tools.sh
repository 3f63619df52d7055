#!/bin/sh
# Make sure that the tools which pip cannot bring are here: a C compiler (cc), for the virtual GPU library, and promtool
# and prometheus, for what is asked of them. Both are unpacked from Debian's package below .cache/tools, which needs no
# root and starts no service; and systemd-analyze. `install-tools.sh cc` looks for the compiler alone. What cannot be
# installed is named with the command that would; the exit status is then 1.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
tools="$root/.cache/tools"
missing=0

have() { command -v "$1" >/dev/null 2>&1; }

# The prefix that lets us run apt: empty as root, sudo where it asks nothing; 1 if there is no way.
as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"
    elif have sudo && sudo -n true 2>/dev/null; then sudo -n "$@"
    else return 1
    fi
}

install_cc() {
    if have cc; then return 0; fi
    if have apt-get && as_root apt-get update -q >&2 &&
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends gcc libc6-dev >&2 &&
        have cc; then return 0; fi
    echo "install-tools: no C compiler (cc); run: sudo apt-get install gcc libc6-dev" >&2
    missing=1
}

install_promtool() {
    if { have promtool && have prometheus; } || [ -x "$tools/usr/bin/prometheus" ]; then return 0; fi
    if have apt-get && have dpkg; then
        mkdir -p "$tools/download"
        # A fresh machine has no package lists yet; one that has them needs no root at all.
        if (cd "$tools/download" && { apt-get download -q prometheus || { as_root apt-get update -q && apt-get download -q prometheus; }; }) >&2 &&
            dpkg -x "$tools"/download/prometheus_*.deb "$tools" && [ -x "$tools/usr/bin/prometheus" ]; then
            rm -r "$tools/download"
            return 0
        fi
        rm -rf "$tools/download"
    fi
    echo "install-tools: no prometheus or no promtool; install both on the PATH, on Debian with:" \
        "sudo apt-get install --no-install-recommends prometheus" >&2
    missing=1
}

# Nearly every machine has it; a slim container has not. Without it one check is skipped, but not in CI.
install_systemd_analyze() {
    if have systemd-analyze; then return 0; fi
    if have apt-get && as_root apt-get update -q >&2 &&
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends systemd >&2 &&
        have systemd-analyze; then return 0; fi
    echo "install-tools: no systemd-analyze, which checks deploy/systemd; run: sudo apt-get install systemd" >&2
    [ -z "${CI:-}" ] || missing=1
}

install_cc
if [ "${1:-all}" != cc ]; then
    install_promtool
    install_systemd_analyze
fi
exit "$missing"
