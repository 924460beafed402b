#!/usr/bin/env bash
# Installs from Debian's or Ubuntu's packages what the build and the private servers need, when it is
# missing. Only programs are wanted: no cluster is created, no service started, and nothing that runs
# already is touched. Silent when everything is there. With `faults`, also what only the fault matrix needs; with
# `rules`, also promtool, for the alert rules; with `browser`, what only the tests of the dashboard need.
set -euo pipefail

POSTGRES_MIN=15

newest_postgres() {
    local dir newest=0
    for dir in /usr/lib/postgresql/*/bin/initdb; do
        [ -x "$dir" ] || continue
        dir=${dir#/usr/lib/postgresql/}
        [ "${dir%%/*}" -gt "$newest" ] && newest=${dir%%/*}
    done
    echo "$newest"
}

wanted=()
# aws-lc, the cryptography of rustls, is C; everything else is Rust.
command -v cc >/dev/null || wanted+=(gcc libc6-dev)
command -v make >/dev/null || wanted+=(make)
[ "$(newest_postgres)" -ge "$POSTGRES_MIN" ] || wanted+=(postgresql)
command -v psql >/dev/null || wanted+=(postgresql-client)
[ -x /usr/lib/rabbitmq/bin/rabbitmq-server ] || wanted+=(rabbitmq-server)
command -v runuser >/dev/null || wanted+=(util-linux)
# A worker with a wrong clock.
if [ "${1:-}" = faults ] && ! compgen -G '/usr/lib/*/faketime/libfaketime.so.1' >/dev/null; then
    wanted+=(libfaketime)
fi
if [ "${1:-}" = rules ]; then
    command -v promtool >/dev/null || wanted+=(prometheus)
fi
if [ "${1:-}" = browser ] && ! [ -x /usr/bin/chromium ] && ! [ -x /usr/bin/chromium-browser ]; then
    wanted+=(chromium)
fi
[ ${#wanted[@]} -eq 0 ] && exit 0

if ! command -v apt-get >/dev/null; then
    echo "Missing: ${wanted[*]} (names of Debian's packages). Please install what corresponds to them here." >&2
    exit 1
fi
as_root=()
if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null; then
        echo "Missing packages: ${wanted[*]}. Run this as root, or install sudo." >&2
        exit 1
    fi
    as_root=(sudo)
fi

cat >&2 <<END
About to install from the distribution's packages: ${wanted[*]}
  - with apt-get$([ ${#as_root[@]} -eq 0 ] || echo ' through sudo, which may ask for your password')
  - only the programs: no database cluster is created and no service is started
END

# Everything that needs root runs in one piece, so that a temporary file can't be left behind by a
# password that was not given.
"${as_root[@]}" bash -s -- "${wanted[@]}" >&2 <<'ROOT'
set -euo pipefail

policy=/usr/sbin/policy-rc.d
cluster=/etc/postgresql-common/createcluster.d/usage-analytics-no-cluster.conf
saved=$(mktemp -d)
made=()

restore() {
    rm -f "$policy" "$cluster"
    if [ -e "$saved/policy-rc.d" ] || [ -L "$saved/policy-rc.d" ]; then
        mv "$saved/policy-rc.d" "$policy"
    fi
    # Folders that were made for it and are empty again, deepest first.
    for dir in "${made[@]}"; do rmdir "$dir" 2>/dev/null || true; done
    rm -rf "$saved"
}
trap restore EXIT
trap 'exit 130' INT TERM HUP

if [ -e "$policy" ] || [ -L "$policy" ]; then
    mv "$policy" "$saved/"
fi
# 101: "not allowed"; maintainer scripts ask it before they start, stop or restart a service.
printf '#!/bin/sh\nexit 101\n' > "$policy"
chmod 755 "$policy"

for dir in /etc/postgresql-common /etc/postgresql-common/createcluster.d; do
    [ -d "$dir" ] || { mkdir "$dir"; made=("$dir" "${made[@]}"); }
done
echo 'create_main_cluster = false' > "$cluster"

# A broker that starts with the next boot would be a service as well. PostgreSQL's unit starts clusters,
# and there is none.
enabled() { systemctl is-enabled --quiet "$1" 2>/dev/null; }
new_units=()
for unit in rabbitmq-server.service epmd.socket epmd.service prometheus.service; do
    enabled "$unit" || new_units+=("$unit")
done

export DEBIAN_FRONTEND=noninteractive
apt-get update -q
apt-get install -q -y --no-install-recommends "$@"

for unit in "${new_units[@]}"; do
    if enabled "$unit"; then systemctl disable --quiet "$unit"; fi
done
ROOT

installed=$(newest_postgres)
if [ "$installed" -lt "$POSTGRES_MIN" ]; then
    echo "The distribution's PostgreSQL is version $installed; $POSTGRES_MIN or newer is needed (apt.postgresql.org has it)." >&2
    exit 1
fi
echo "Installed." >&2
