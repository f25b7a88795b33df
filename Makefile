# Perdure. Every target does its own set-up.

SHELL := bash
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X github.com/perdure/perdure/cmd/internal/version.version=$(VERSION)

STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
WORKFLOWCHECK := go.temporal.io/sdk/contrib/tools/workflowcheck@v0.6.0
# The Temporal server is not ours to check, and whatever links it takes minutes to load.
CHECKED := ./streaming/... ./activities/... ./workflows/... ./workers/... ./cmd/worker/... ./cmd/internal/config/... ./cmd/internal/process/... ./cmd/internal/httpapi/... ./cmd/internal/node/... ./cmd/internal/version/...

.DEFAULT_GOAL := help
.PHONY: help setup build tctl demo dev test test-pg regress race lint generate bench soak long chaos fuzz clean

help: ## show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## get modules and Postgres server binaries
	@go mod download
	@deploy/scripts/postgres.sh

build: ## build bin/perdure and bin/worker
	@echo "building bin/perdure and bin/worker (the first time takes some minutes: it contains the Temporal server)"
	@go build -ldflags '$(LDFLAGS)' -o bin/perdure ./cmd/perdure
	@go build -ldflags '$(LDFLAGS)' -o bin/worker ./cmd/worker

tctl: ## build bin/tctl, Temporal's classic command line
	@cd deploy/tctl && go build -o ../../bin/tctl go.temporal.io/server/cmd/tools/cli

demo: setup build ## watch orders change for 20 s (DEMO_SECONDS=0: until Ctrl-C)
	@bin/perdure demo

dev: setup build ## run everything in one process, with a Postgres to play with
	@bin/perdure dev --with-postgres

test: setup build tctl ## run all tests, with the race detector where it matters
	@deploy/scripts/test.sh

PG ?= 17
test-pg: ## run the tests of the Postgres source against another server, PG=16, 17 or 18
	@deploy/scripts/test-pg.sh $(PG)

regress: setup ## run the regression tests of Postgres with our source attached
	@deploy/scripts/regress.sh

race: setup ## run the tests of the data and control planes with the race detector
	@go test -race -short -shuffle=on ./streaming/... ./activities/... ./workflows/... ./workers/...

lint: ## check formatting, correctness and determinism of workflows
	@out=$$(gofmt -l activities cmd deploy streaming workers workflows); if [ -n "$$out" ]; then echo "run gofmt -w on:"; echo "$$out"; exit 1; fi
	@go vet ./...
	@go run $(STATICCHECK) $(CHECKED)
	@go run $(WORKFLOWCHECK) -config workflows/workflowcheck.yaml ./workflows/...
	@go test -count=1 -run TestLayers ./streaming

generate: ## write generated files anew
	@go generate ./streaming/... ./activities/... ./workflows/... ./workers/... ./cmd/...

bench: setup build ## measure the pipeline beside pg_recvlogical and COPY, then the query engine
	@PERDURE_BIN_DIR=$(CURDIR)/bin go test -run '^$$' -bench . -benchtime 1x -timeout 30m ./cmd/internal/e2e
	@GOGC=400 go test -run '^$$' -bench . -benchmem -timeout 60m ./streaming/query # as the worker has it

SOAK ?= 1h
soak: build ## hold random queries against the reference evaluator, then write 2,000 changes/s, each for SOAK=1h
	@PERDURE_SOAK=$(SOAK) go test -count=1 -run Random -timeout 0 -v ./streaming/query
	@PERDURE_SOAK=$(SOAK) go test -count=1 -run MemoryStaysFlat -timeout 0 -v ./cmd/internal/e2e

AWAY ?= 5m
CYCLES ?= 500
IDLE ?= 1000
long: setup build tctl ## run the long forms of tests, for hours: AWAY=5m without Temporal, CYCLES=500 of an instance, IDLE=1000 pipelines, 30 minutes of load, more kills
	@PERDURE_AWAY=$(AWAY) PERDURE_BIN_DIR=$(CURDIR)/bin go test -count=1 -run ControlPlaneIsAway -timeout 0 -v ./cmd/internal/chaos
	@PERDURE_FULL=1 PERDURE_CYCLES=$(CYCLES) PERDURE_SOAK=30m PERDURE_BIN_DIR=$(CURDIR)/bin go test -count=1 -timeout 0 -v ./cmd/internal/e2e
	@PERDURE_IDLE=$(IDLE) PERDURE_BIN_DIR=$(CURDIR)/bin go test -run '^$$' -bench Idle -benchtime 1x -timeout 0 ./cmd/internal/e2e

FIRST ?= 1
SEEDS ?= 100
DURATION ?= 1h
chaos: setup build ## break parts of the whole system at random, for SEEDS=100 seeds from FIRST=1 on or DURATION=1h; SEED=7 replays one, FAULT='drop slot' makes one kind only
	@PERDURE_FIRST=$(FIRST) PERDURE_SEEDS=$(SEEDS) PERDURE_SEED=$(SEED) PERDURE_FOR=$(DURATION) PERDURE_FAULT='$(FAULT)' PERDURE_BIN_DIR=$(CURDIR)/bin \
		go test -count=1 -run NothingIsLost -timeout 0 -v ./cmd/internal/chaos

fuzz: ## fuzz the decoders, 30 s each
	@for p in $$(go list ./streaming/...); do for f in $$(go test -list '^Fuzz' $$p | grep '^Fuzz'); do \
		echo "$$p $$f"; go test -run '^$$' -fuzz "^$$f$$" -fuzztime 30s $$p || exit 1; done; done

clean: ## remove what was built, and the data of demo and dev
	@rm -rf bin .perdure
