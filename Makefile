# `make` lists what there is. What a target needs and the machine lacks is installed first, by
# .ci/setup: Debian's apt, with sudo where needed, no service started.
.DEFAULT_GOAL := help
.PHONY: help demo test test-slow build release check fuzz bench soak soak-sim soak-changes cross ci

FUZZ_SECONDS ?= 300
BENCHES ?= failover overlap routers links lateness addresses change takeovers scenarios store
KEEPALIVED ?= keepalived
SOAK_SECONDS ?= 3600
SOAK_SEED ?= 1
SOAK_CHANGES ?= 10000
# Targets of `make cross`: files of cross/targets.
TARGETS ?= $(basename $(notdir $(wildcard cross/targets/*.env)))

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## a virtual IP changes hands on a network inside this machine
	@.ci/setup build
	@echo "demo: building (a debug build: quick to make)"
	@cargo build --locked --quiet
	@cargo run --locked --quiet -- demo

test: ## every suite but what test-slow runs, with seconds and counts
	@.ci/setup test
	@.ci/test

test-slow: ## guests with a kernel of their own, and minutes of chance: storm, simulator, fuzzed parsers
	@.ci/setup test fuzz
	@.ci/test --slow

build: ## target/debug/havip
	@.ci/setup build
	cargo build --locked

release: ## target/release/havip, small and for this machine's C library
	@.ci/setup build
	cargo build --locked --release

check: ## format, lints, documentation, module walls, feature sets
	@.ci/setup build
	@.ci/check

fuzz: ## every parser for FUZZ_SECONDS=300 each
	@.ci/setup fuzz
	@tests/fuzz/run $(FUZZ_SECONDS)

bench: ## everything beside KEEPALIVED=keepalived or keepalived-2.3, and a busy etcd: tables in target/bench, in two hours; as root
	@.ci/setup test
	@tests/lab/fetch $(KEEPALIVED)
	@for name in $(BENCHES); do \
		HAVIP_KEEPALIVED=$(KEEPALIVED) cargo bench --locked --bench $$name || exit; done

soak: ## random faults of an etcd cluster for SOAK_SECONDS=3600, from SOAK_SEED=1; as root
	@.ci/setup test
	@tests/lab/fetch etcd-3.5
	HAVIP_SOAK_SECONDS=$(SOAK_SECONDS) HAVIP_SEED=$(SOAK_SEED) \
		cargo test --locked --test etcd_faults -- --nocapture a_storm_of_faults_by_chance::etcd_3_5

soak-sim: ## schedules of faults in the simulator for SOAK_SECONDS=3600, from SOAK_SEED=1
	@.ci/setup build
	HAVIP_SECONDS=$(SOAK_SECONDS) HAVIP_SEED=$(SOAK_SEED) CARGO_PROFILE_TEST_OPT_LEVEL=2 \
		cargo test --locked --no-default-features --features sim --test sim \
		-- --nocapture schedules::a_run

soak-changes: ## SOAK_CHANGES=10000 of a gateway's file, and of file and etcd; as root
	@.ci/setup test
	@tests/lab/fetch etcd-3.5
	HAVIP_CHANGES=$(SOAK_CHANGES) cargo test --locked --release --test changes -- --nocapture

cross: ## static binaries in dist/, for TARGETS="x86_64 aarch64 armv7"
	@.ci/setup cross
	@cross/build $(TARGETS)

ci: ## what the CI runs: check, test, the static binary's size
	@.ci/run
