# Whimbrel's house rules, executable. `make test` is what must pass.

GO        ?= go
# Packages tested at a time; two suit two cores, and tests that start servers.
P         ?= 2
# For one package's tests, on a machine that does other things too.
TIMEOUT   ?= 20m
FUZZTIME  ?= 30s
BENCHTIME ?= 1s
# Of internal/bench: -short, or -only SECTION,…
BENCHARGS ?=
# Of a fault campaign; ROUNDS, if given, instead of DURATION.
DURATION  ?= 5m
ROUNDS    ?=
SEED      ?= $(shell date +%N | sed 's/^0*//' | cut -c1-6)
VERSION   ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)

MODULE    := github.com/whimbrel-edge/whimbrel
LDFLAGS   := -X $(MODULE)/internal/version.Version=$(VERSION)
# Packages that must build for every target, without cgo.
PURE      := $(wildcard models twin)
EXAMPLES  := $(patsubst %/go.mod,%,$(wildcard examples/*/go.mod))

.PHONY: help build test setup check generated bench fuzz chaos clean

help:
	@echo 'make build   bin/whimbrel and bin/whimbrel-edge'
	@echo 'make test    everything that must hold: setup, check, all tests with the race detector'
	@echo 'make check   gofmt, vet, go.mod, generated files, architecture; no tests of behaviour'
	@echo 'make bench   all benchmarks                       [BENCHTIME=1s, BENCHARGS=-short]'
	@echo 'make fuzz    every fuzz target, one by one        [FUZZTIME=30s]'
	@echo 'make chaos   a fault campaign against the whole      [DURATION=5m or ROUNDS=, SEED=]'
	@echo 'make clean   removes what build made'

build:
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/whimbrel ./cmd/whimbrel-edge

# WHIMBREL_REQUIRE turns the skip for a missing program into a failure.
test: setup check
	WHIMBREL_REQUIRE=1 $(GO) test -race -timeout $(TIMEOUT) -p $(P) ./...
	@set -e; for dir in $(EXAMPLES); do \
		echo "$(GO) test $$dir"; (cd $$dir && $(GO) vet ./... && $(GO) test -timeout $(TIMEOUT) ./...); \
	done

setup:
	@sh .ci/setup

check: generated
	@unformatted=$$(gofmt -l . | grep -v ^third_party/ || true); if [ -n "$$unformatted" ]; then \
		echo "not formatted, run gofmt -w on:"; echo "$$unformatted"; exit 1; \
	fi
	$(GO) mod tidy -diff
	@sh .ci/examples
	$(GO) vet ./...
ifneq ($(PURE),)
	GOOS=linux GOARCH=arm64 CGO_ENABLED=0 $(GO) vet $(PURE:%=./%/...)
endif
	$(GO) test ./internal/archtest

# Generated protobuf code is committed. Where the generators are installed it is
# made anew, aside, and compared.
generated:
	@sh .ci/generated

bench:
	$(GO) test -run '^$$' -bench . -benchmem -benchtime $(BENCHTIME) -timeout 30m -p 1 \
		$$(grep -rl --include='*_test.go' '^func Benchmark' --exclude-dir=testdata --exclude-dir=examples . | xargs -r -n1 dirname | sort -u)
	@if [ -d internal/bench ]; then echo "$(GO) run ./internal/bench $(BENCHARGS)"; $(GO) run ./internal/bench $(BENCHARGS); fi

fuzz:
	@set -e; grep -r --include='*_test.go' '^func Fuzz' --exclude-dir=testdata --exclude-dir=examples . | \
	sed -E 's|^(.*)/[^/]*:func (Fuzz[A-Za-z0-9_]*).*|\1 \2|' | sort | while read -r dir target; do \
		echo "== $$dir $$target"; \
		$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x "$$dir"; \
	done

# Kills at named steps and anywhere, bad links, full disks, wrong clocks. The same
# SEED plays the same rounds.
chaos:
	WHIMBREL_REQUIRE=1 WHIMBREL_CHAOS_SEED=$(SEED) WHIMBREL_CHAOS_ROUNDS=$(ROUNDS) WHIMBREL_CHAOS_DURATION=$(if $(ROUNDS),,$(DURATION)) \
		$(GO) test -count=1 -v -timeout 12h -run '^TestChaos$$' ./internal/e2e

clean:
	rm -rf bin
