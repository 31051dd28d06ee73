# The commands of this project; `make` lists them.

.DEFAULT_GOAL := help
.PHONY: help demo test e2e soak bench fuzz build image crds docs fmt clean

MINUTES ?= 10
ONLY ?=
SIZES ?= 100,1000,10000
# Where `make bench` writes: docs, or another folder with a copy of docs/benchmarks.md.
OUT ?= docs

help: ## this list
	@sed -n 's/^\([a-z0-9]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

demo: ## a tour of the operator on this machine, without an account (HOLD=1: leave everything up until Ctrl-C)
	@dev/demo

test: ## formatting, lints, documentation, then all tests, on a real API server (CLUSTER=current: the one of KUBECONFIG)
	@dev/prerequisites test
	@[ "$(CLUSTER)" = current ] || dev/cluster build
	@dev/helm --build
	@dev/promtool --build
	cargo fmt --all --check
	@if command -v gofmt >/dev/null; then unformatted=$$(gofmt -l dev); [ -z "$$unformatted" ] || { echo "not formatted by gofmt: $$unformatted"; exit 1; }; fi
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS=-Dwarnings cargo doc --workspace --no-deps --locked
	cargo test --workspace --locked
	@if [ "$(CLUSTER)" != current ]; then \
		if dev/node able; then $(MAKE) --no-print-directory e2e; else echo "make test: so \`make e2e\` was left out"; fi; fi

e2e: ## the chart on a real node: images, Pods, a mounted Secret (as root; `dev/node able` says whether it can be done here)
	@dev/prerequisites test
	@dev/node able
	@dev/cluster build
	@dev/helm --build
	@dev/image
	cargo test --locked --test e2e -- --ignored --nocapture

soak: ## every life cut at every request; a random walk through all faults, then a day of 2,000 KmsSecrets, for MINUTES=10 each; WALK_SEED=N walks the same way again
	@dev/prerequisites test
	@[ "$(CLUSTER)" = current ] || dev/cluster build
	SOAK_MINUTES=$(MINUTES) cargo test --locked --test it -- --ignored --nocapture soak
	cargo build --release --locked -p kms-secret-operator -p kms-bench
	target/release/kms-bench day --minutes $(MINUTES)

bench: ## measures the operator against a naive writer, writes docs/benchmarks.md (SIZES=100,1000: with fewer KmsSecrets)
	@dev/prerequisites bench
	@dev/cluster build
	cargo build --release --locked -p kms-secret-operator -p kms-bench
	target/release/kms-bench --sizes $(SIZES) --out $(OUT)

fuzz: ## every parser and decision: the property tests of src/*/fuzz one by one, MINUTES=10 of CPU for each module (ONLY=convert: of that name)
	@dev/prerequisites build
	@dev/fuzz $(MINUTES) $(ONLY)

build: ## the operator and the emulator, as releases
	@dev/prerequisites build
	cargo build --release --locked -p kms-secret-operator -p kms-emulator

image: ## the images of the operator and of the emulator, without Docker, in target/images
	@dev/prerequisites build
	@dev/image

crds: ## writes crds/*.yaml, and the chart's copies, anew from the types
	UPDATE_CRDS=1 cargo test --locked --test it crds

docs: ## writes docs/reference.md anew from the types, and the table of values in docs/installing.md
	UPDATE_DOCS=1 cargo test --locked --test it -- docs::the_reference chart::the_table

fmt: ## formats all code
	cargo fmt --all
	@if command -v gofmt >/dev/null; then gofmt -w dev; fi

clean: ## removes what was built, the cached Kubernetes too (no cluster may be running)
	cargo clean
	rm -rf .cache
