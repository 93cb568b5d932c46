# Everything that is done with this repository from a shell. `make` alone explains.

SHELL := /bin/sh
GO ?= go

# What `make run` hands to `starling dev`, such as ARGS="--data /tmp/mail".
ARGS ?=
# Packages, and what else go test is to know: make test PKG=./frontend/imap TESTFLAGS="-run Idle -v"
PKG ?= ./...
TESTFLAGS ?=
BENCH ?= .
# What `make bench` hands to bench, such as BENCHFLAGS="-quick"; CORPUS: a folder of .eml files; BENCH_OUT: where the report is written.
BENCHFLAGS ?=
CORPUS ?=
BENCH_OUT ?= bin/bench
FUZZTIME ?= 10s
IMAGE ?= starling
SEED ?= 1
TIME ?= 30m
# Where goroutines meet: tested once more under the race detector.
RACE ?= ./events/... ./frontend/auth ./frontend/mailstore ./frontend/imap

LINT := bin/golangci-lint

.DEFAULT_GOAL := help
.PHONY: help run test unit race chart vet lint fmt build image bench microbench fuzz chaos tools setup clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## start two nodes on this machine, with all they need (ARGS="…" for `starling dev`)
	@deploy/setup run
	@$(GO) build -o bin/starling ./cmd/starling
	@exec bin/starling dev $(ARGS)

test: setup vet unit race chart ## install what is missing, then all tests (PKG=./… TESTFLAGS="…")

unit:
	$(GO) test -timeout 15m $(TESTFLAGS) $(PKG)

race: ## the concurrent packages under the race detector (RACE="./… ./…")
	$(GO) test -race -timeout 15m $(TESTFLAGS) $(RACE)

chart: ## the Helm chart's tests, a module of their own
	cd helm/tests && $(GO) test -timeout 10m $(TESTFLAGS) ./...

vet:
	$(GO) vet $(PKG)

lint: $(LINT) ## golangci-lint, in the pinned version
	$(LINT) run --allow-parallel-runners $(PKG)
	cd helm/tests && ../../$(LINT) run --allow-parallel-runners ./...

fmt: $(LINT) ## format all Go files
	$(LINT) fmt

build: ## build bin/starling
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/starling ./cmd/starling

image: ## the container image, with a Docker engine (IMAGE=name)
	docker build -f deploy/Dockerfile -t $(IMAGE) .

bench: ## beside Dovecot: how fast, for which goals, into BENCH_OUT (BENCHFLAGS="-quick" CORPUS=folder)
	@deploy/setup bench
	@$(GO) run ./bench -out $(BENCH_OUT) $(if $(CORPUS),-corpus $(CORPUS)) $(BENCHFLAGS)

microbench: ## Go's benchmarks (PKG=./… BENCH=regexp)
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchmem -timeout 60m $(TESTFLAGS) $(PKG)

fuzz: ## each fuzz target for FUZZTIME (10s), of PKG
	@set -e; for pkg in $$($(GO) list $(PKG)); do \
		for target in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
			echo "$$pkg $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$pkg; \
		done; \
	done

# Its small disks go with it, also if it is killed.
chaos: OWN_MOUNTS = $(shell unshare --mount true 2>/dev/null && echo unshare --mount)
chaos: ## break a cluster on purpose, in rounds for TIME, from SEED (SEED=1 TIME=30m)
	$(OWN_MOUNTS) $(GO) test ./chaos -run 'TestChaos$$' -v -timeout 24h -chaos.seed $(SEED) -chaos.time $(TIME) $(TESTFLAGS)

tools: $(LINT) ## build the pinned tools into bin/

# A few minutes the first time; later Go's build cache has it.
$(LINT): deploy/tools/lint/go.mod deploy/tools/lint/go.sum
	cd deploy/tools/lint && $(GO) build -o ../../../$(LINT) github.com/golangci/golangci-lint/v2/cmd/golangci-lint

setup: ## install what is missing on this machine
	@deploy/setup

clean: ## remove what was built; the data of `make run` stay
	rm -rf bin
