#!/usr/bin/env bash
# Makes sure that Postgres server binaries are there: the demonstration and the tests run private servers of their own.
# Nothing is started, and no server is set up in the system.
set -euo pipefail

found() {
	[ -n "${PERDURE_POSTGRES_BIN:-}" ] || command -v initdb >/dev/null 2>&1 || compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null
}

found && exit 0
as_root=()
if [ "$(id -u)" -ne 0 ]; then
	if ! sudo -n true 2>/dev/null && ! { [ -t 0 ] && command -v sudo >/dev/null 2>&1; }; then
		echo "Postgres is missing, and there is no root or sudo to install it: apt-get install postgresql (or set PERDURE_POSTGRES_BIN)" >&2
		exit 1
	fi
	as_root=(sudo)
fi
if ! command -v apt-get >/dev/null 2>&1; then
	echo "Postgres is missing: install a Postgres server, version 14 or later (or set PERDURE_POSTGRES_BIN)" >&2
	exit 1
fi

echo "installing Postgres server binaries (apt-get install postgresql)"
run() { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive "$@" </dev/null >/dev/null; }
run apt-get update -qq
# Without this, the package would set up a server of its own and start it.
run mkdir -p /etc/postgresql-common/createcluster.d
echo 'create_main_cluster = false' | "${as_root[@]}" tee /etc/postgresql-common/createcluster.d/perdure.conf >/dev/null
run apt-get install -y -qq --no-install-recommends postgresql
if ! found; then
	echo "Postgres is still missing after its installation" >&2
	exit 1
fi
