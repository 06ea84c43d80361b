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
    start_nothing
    [ -n "${updated:-}" ] || { apt-get update -qq; updated=1; }
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$1" >/dev/null
}

start_nothing() { # packages that would run what they bring do not, as long as this script runs
    if [ ! -e /usr/sbin/policy-rc.d ]; then
        printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
        chmod +x /usr/sbin/policy-rc.d
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    fi
}

postgresql() {
    # Its package would make a cluster and run it; the tests make their own.
    if [ "$(id -u)" = 0 ] && [ ! -e /etc/postgresql-common ]; then
        mkdir -p /etc/postgresql-common/createcluster.d
        echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.d/farcall-tests.conf
    fi
    need postgresql "/usr/lib/postgresql/*/bin/initdb"
}

haproxy() {
    need haproxy "/usr/sbin/haproxy"
}

rabbitmq() {
    # The plugins that the tests need come with it.
    need rabbitmq-server "/usr/lib/rabbitmq/lib/rabbitmq_server-*/plugins/rabbitmq_auth_backend_http-*"
}

network() {
    # For the second host (a network namespace) whose cable the chaos suite pulls.
    need iproute2 "/*bin/ip"
}

nodejs() { # for the OpenID Connect provider; npm fetches its package at the first test
    need nodejs "/usr/bin/node"
    need npm "/usr/bin/npm"
}

chromium() { # for the tests of the login pages
    need chromium "/usr/bin/chromium"
    need fonts-dejavu-core "/usr/share/fonts/truetype/dejavu"
}

slurm() { # a batch system
    need munge "/usr/sbin/munged"
    need slurmctld "/usr/sbin/slurmctld"
    need slurmd "/usr/sbin/slurmd"
    need slurm-client "/usr/bin/sbatch"
}

local_users() { # users and a PAM service that tests of multi-user endpoints make for themselves, and remove; as root
    need passwd "/usr/sbin/useradd"
    need util-linux "/usr/bin/setpriv"
    need libpam-modules "/*lib/*/security/pam_exec.so"
}

systemd_analyze() { # checks the units that enable-on-boot writes; nothing is started by it
    need systemd "/usr/bin/systemd-analyze"
}

missing=0
postgresql
haproxy
rabbitmq
network
nodejs
chromium
slurm
local_users
systemd_analyze
exit $((missing * 69))
