#!/usr/bin/env bash
# Runs the regression tests of Postgres with our source attached, on Debian and Ubuntu: they come from the source package of
# the installed server (version 15 or later), by an apt configuration of its own that is removed again.
#
#   regress.sh [go test flags]
set -euo pipefail
cd "$(dirname "$0")/../.."
command -v apt-get >/dev/null || { echo "regress.sh needs apt-get" >&2; exit 1; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
if [ -z "${PERDURE_REGRESS:-}" ]; then
	major=$(basename "$(dirname "$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -1)")")
	version=$(dpkg-query -W -f '${Version}' "postgresql-$major")
	echo "getting the source package postgresql-$major=$version"
	mkdir -p "$work"/apt/{sources,lists/partial}
	for list in /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources; do
		[ -f "$list" ] && sed -E 's/^Types:.*/Types: deb-src/; s/^deb /deb-src /' "$list" >"$work/apt/sources/$(basename "$list" | tr -d ' ')"
	done
	apt() { (cd "$work" && apt-get -qq -o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts="$work/apt/sources" -o Dir::State::Lists="$work/apt/lists" \
		-o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o APT::Sandbox::User=root "$@"); }
	apt update
	apt source --download-only "postgresql-$major=$version"
	mkdir "$work/source"
	tar -xf "$work"/*.orig.tar.* -C "$work/source" --strip-components=1 --wildcards '*/src/test/regress'
	export PERDURE_REGRESS=$work/source/src/test/regress
fi
go test -count=1 -v -timeout 60m "$@" -run '^TestRegress$' ./streaming/source/postgres
