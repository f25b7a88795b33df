#!/usr/bin/env bash
# Runs all tests and ends with a summary. Packages that link the Temporal server are tested without the race detector:
# building the server with it takes many minutes and says nothing about our code. The query engine, which one goroutine
# runs, is tested at length without it (make race has it, too), and beside it those tests of the pipeline that do the same
# thing very often.
#
#   test.sh [go test flags]
set -uo pipefail
cd "$(dirname "$0")/../.."
export PERDURE_BIN_DIR="$PWD/bin"

# report shows one line for each package that passes and everything that one printed which did not; at the end once more,
# where a reader of the last screen finds it, the slowest tests and what the failed ones said themselves.
report() {
	awk '
		/^ *--- PASS:/ { passed++ }
		/^--- (PASS|FAIL):/ { seconds = substr($4, 2) + 0; if (seconds >= 15) slow[$3] = seconds }
		/^ *--- SKIP:/ { skipped++ }
		/^ *--- FAIL:/ { failed++ }
		/: TCK: |there is no TCK in/ { line = $0; sub(/^.*\.go:[0-9]*: /, "", line); print line; fflush() }
		{ text = text $0 "\n" }
		/^ +[a-z0-9_]+_test\.go:[0-9]+: / { said = /: output of / ? 0 : 12 }
		/^(panic: |fatal error: |WARNING: DATA RACE)/ { said = 30 }
		/^ *(---|===) / { said = 0 }
		/^ *--- FAIL:/ { why = why $0 "\n" }
		said > 0 { why = why $0 "\n"; said-- }
		/^ok  \t/ { packages++; print; fflush(); text = why = "" }
		/^\?   \t/ || /^\t.*coverage: / { text = "" }
		/^FAIL\t/ { broken = broken "  " $2 "\n"; printf "%s", text; fflush(); reasons = reasons why; text = why = "" }
		/^(PASS|FAIL)$/ { next }
		END {
			if (text ~ /[^ \n]/ && text !~ /^FAIL\n$/) printf "%s", text
			printf "\n%s: %d packages ok, %d tests passed, %d failed, %d skipped\n\n", what, packages, passed, failed, skipped
			for (n = 0; n < 15; n++) {
				slowest = ""
				for (test in slow) if (slowest == "" || slow[test] > slow[slowest]) slowest = test
				if (slowest == "") break
				printf "%s%s %.0f s", n ? ", " : "slow: ", slowest, slow[slowest]
				delete slow[slowest]
			}
			if (n) printf "\n\n"
			if (broken != "") printf "failed packages:\n%s\nwhat the failed tests said:\n%s\n", broken, substr(reasons, 1, 6000)
		}' what="$1"
}

# Stripping makes the programs quicker to link; make lint vets.
flags=(-v -shuffle=on -vet=off -ldflags '-s -w')
race=(-race -short -timeout 25m)
detected=(./streaming/... ./activities/... ./workflows/... ./workers/...)
often='^TestPostgresUnderFaults$|^TestWhatIsCopiedOfAChangedTable$'
half='^Test[A-D]'
# Tests wait more than they compute, and those of a package run one after the other. So they run side by side, the many of the
# pipeline in two halves.
status=0
go build -race "${detected[@]}" || exit 1 # once, for all that follow
{ go test "${flags[@]}" "${race[@]}" -run "$half" -skip "$often" "$@" ./streaming/pipeline 2>&1 | report "half of the pipeline"; } &
jobs=($!)
{ go test "${flags[@]}" "${race[@]}" -skip "$half|$often" "$@" ./streaming/pipeline 2>&1 | report "the other half of the pipeline"; } &
jobs+=($!)
mapfile -t others < <(go list "${detected[@]}" | grep -vE '/streaming/(pipeline$|query)')
go test "${flags[@]}" "${race[@]}" "$@" "${others[@]}" 2>&1 |
	report "all else with the race detector" || status=1
{ go test "${flags[@]}" -short -run "$often" -timeout 20m "$@" ./streaming/pipeline 2>&1 | report "the pipeline, again and again"; } &
jobs+=($!)
go test "${flags[@]}" -timeout 15m "$@" ./streaming/query/... 2>&1 |
	report "the query engine at length" || status=1
go test "${flags[@]}" -parallel 3 -timeout 20m "$@" ./cmd/... 2>&1 |
	report "the programs" || status=1
for job in "${jobs[@]}"; do wait "$job" || status=1; done
if [ "$status" -eq 0 ]; then echo "all tests passed"; else echo "some tests FAILED"; fi
exit "$status"
