#!/usr/bin/env bash
# Install the servers that the tests start for themselves (nothing is left running). Debian and Ubuntu; root installs,
# anybody else is told what is missing. Safe to run again; quick when all is there.
set -euo pipefail

need() { # package, path of a program that it brings (a pattern)
    if compgen -G "$2" >/dev/null; then return; fi
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "Missing: $1 (Debian, Ubuntu: sudo apt-get install $1)" >&2
        missing=1
        return
    fi
    echo "Installing $1 …" >&2
    [ -n "${updated:-}" ] || { apt-get update -qq; updated=1; }
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$1" >/dev/null
}

postgresql() {
    # Its package would make a cluster and run it; the tests make their own.
    if [ "$(id -u)" = 0 ] && [ ! -e /etc/postgresql-common ]; then
        mkdir -p /etc/postgresql-common/createcluster.d
        echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.d/farcall-tests.conf
    fi
    need postgresql "/usr/lib/postgresql/*/bin/initdb"
}

nodejs() { # for the OpenID Connect provider; npm fetches its package at the first test
    need nodejs "/usr/bin/node"
    need npm "/usr/bin/npm"
}

chromium() { # for the tests of the login pages
    need chromium "/usr/bin/chromium"
    need fonts-dejavu-core "/usr/share/fonts/truetype/dejavu"
}

haproxy() {
    # Its package would run it, with a configuration that listens nowhere; the tests start their own.
    need haproxy "/usr/sbin/haproxy"
}

missing=0
postgresql
nodejs
chromium
haproxy
exit $((missing * 69))
