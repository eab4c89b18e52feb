# The ways into the project. `make` alone lists them.

# rustup's default place, for shells that have not sourced its env file.
export PATH := $(PATH):$(HOME)/.cargo/bin
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
readers_python := target/services/readers/bin/python
# Clippy is a compiler that also lints: in rustc's place it lets linting and tests share one build. Its arguments come as `cargo clippy`
# passes them.
linting := RUSTC_WORKSPACE_WRAPPER=clippy-driver CLIPPY_ARGS=-D__CLIPPY_HACKERY__warnings__CLIPPY_HACKERY__
define lint_and_test
	$(CARGO) fmt --all --check
	$(linting) $(CARGO) test --workspace --all-targets --locked --no-run
	$(linting) $(CARGO) test --workspace --locked
endef

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: packages ## Build weir, get a real MySQL, run a shop with live traffic and show that the tables are equal
	scripts/services.sh mysql-fetch
	$(CARGO) build --release --locked --bin weir
	scripts/demo.sh

.PHONY: test
test: packages services ## Lint, unit, property and service tests against real servers, which are fetched
	$(lint_and_test)

.PHONY: test-all
test-all: export WEIR_TEST_ALL_READERS := 1
test-all: packages services ## The same with every reader of Delta tables: chDB, Delta Kernel and Spark, too
	scripts/system-packages.sh --with-jdk
	scripts/services.sh all-readers
	$(lint_and_test)

.PHONY: page
page: packages ## Look at the service's page in a headless Chromium (another 170 MB to fetch); pictures go to target/page
	scripts/services.sh chromium-fetch
	scripts/services.sh mysql-fetch
	scripts/services.sh readers-fetch
	$(CARGO) build --locked --bin weir
	$(readers_python) tests/support/page.py target/debug/weir scripts/services.sh target/page

SOAK_SECONDS ?= 3600
.PHONY: soak
soak: export WEIR_SOAK_SECONDS := $(SOAK_SECONDS)
soak: packages services ## 2,000 random changes a second for an hour (SOAK_SECONDS), everything reconciled all the time: no false difference
	$(CARGO) test --locked --test main -- topics::soak --nocapture

CHAOS_KILLS ?= 1500
CHAOS_REPEATS ?= 10
chaos_results := $(CURDIR)/target/chaos/results.jsonl
.PHONY: chaos
chaos: export WEIR_CHAOS_KILLS := $(CHAOS_KILLS)
chaos: export WEIR_CHAOS_REPEATS := $(CHAOS_REPEATS)
chaos: export WEIR_CHAOS_RESULTS := $(chaos_results)
chaos: packages services ## Kill the service CHAOS_KILLS times and make every other fault CHAOS_REPEATS times; writes docs/chaos.md, goes on where it was broken off
	mkdir -p $(dir $(chaos_results))
	$(CARGO) test --locked --test main -- topics::chaos --nocapture --test-threads 2
	$(readers_python) tests/support/chaos_table.py $(chaos_results) docs/chaos.md

FUZZ_SECONDS ?= 60
.PHONY: fuzz
fuzz: export FUZZ_SECONDS := $(FUZZ_SECONDS)
fuzz: packages ## Look for bytes that break what reads binlogs, rows, documents, statements, settings, messages and Delta logs; FUZZ_SECONDS each
	CARGO="$(CARGO)" fuzz/run.sh

.PHONY: lint
lint: ## Formatting and clippy, warnings are errors
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

.PHONY: bench
bench: packages services ## Compare weir with the wire-speed floor, Kafka with direct, the table engine with delta-rs; BENCH_ROWS and BENCH_CHANGES set the size
	$(CARGO) build --release --locked --bin weir
	$(CARGO) build --release --locked --manifest-path bench/floor/Cargo.toml --target-dir target/bench-floor
	$(CARGO) build --release --locked --bench engine --message-format=json-render-diagnostics > target/bench-engine.json
	$(CARGO) build --release --locked --bench decode --message-format=json-render-diagnostics > target/bench-decode.json
	$(readers_python) bench/run.py

peers_python := target/bench-peers/bin/python
$(peers_python): bench/peers.txt
	python3 -m venv target/bench-peers
	target/bench-peers/bin/pip install --quiet --requirement bench/peers.txt
	touch $@

.PHONY: bench-peers
bench-peers: packages services $(peers_python) ## Copy the same tables by weir and by others, and count what each left wrong (another 500 MB to fetch)
	$(CARGO) build --release --locked --bin weir
	$(readers_python) bench/side_by_side.py

# Which build it is, for `weir --version`; a change of it builds the program anew.
build: export WEIR_BUILD ?= $(shell git describe --always --dirty 2>/dev/null)
.PHONY: build
build: packages ## Build the release binary, target/release/weir
	$(CARGO) build --release --locked --bin weir

.PHONY: dist
dist: build ## Pack it with man pages, completions, systemd unit and licences into target/dist
	scripts/dist.sh

.PHONY: services
services: packages ## Fetch the servers and readers that tests use into target/services
	scripts/services.sh all

.PHONY: packages
packages: # Debian packages that are missing; says so where it can't install them.
	scripts/system-packages.sh

.PHONY: clean
clean: ## Remove everything that was built or fetched
	rm -rf target bench/out
