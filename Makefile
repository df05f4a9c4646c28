# `make help` lists what there is.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

TARGET := python3 tests/target/target.py
CHART := python3 tests/chart/chart.py
IMAGE := python3 tests/image/image.py
JUNIT := target/nextest/default/junit.xml

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## Start a real vLLM and the sidecar, run 16 rollouts both ways, print what was measured
	cargo build --release --locked
	python3 tests/demo/demo.py --binary target/release/sidedraft $(DEMO_FLAGS)

.PHONY: test
test: nextest redis ## Run every test: chart, image, unit, property, fake server, simulated GPU, real vLLM
	$(TARGET) setup
	cargo nextest run --locked --no-run
	$(CHART) check --binary target/debug/sidedraft
	$(IMAGE) check --binary target/debug/sidedraft
	rm -f $(JUNIT)
	status=0; $(TARGET) with float32 -- cargo nextest run --locked || status=$$?; \
		python3 tests/summary.py $(JUNIT); exit $$status

.PHONY: exactness
exactness: nextest ## Compare 36,000 sampled answers, and 3,000 replayed ones, with the server's exact distributions (up to 50 minutes)
	$(TARGET) with float32 -- cargo nextest run --locked --profile exactness --test real --run-ignored only \
		--no-capture long_form

.PHONY: rewards
rewards: ## Compare rewards of 512 rollouts, direct and replayed under the next policy, on a real vLLM (about 15 minutes)
	cargo build --release --locked
	policies=$$($(TARGET) policies); $(TARGET) with bfloat16 --model $$policies/policy-1 -- \
		python3 tests/rewards/rewards.py target/release/sidedraft $$policies

.PHONY: conformance
conformance: ## Ask a real vLLM the same things directly and through the sidecar, compare the replies (about 20 minutes)
	cargo build --locked
	$(TARGET) with float32 -- python3 tests/conformance/conformance.py --binary target/debug/sidedraft $(CONFORMANCE_FLAGS)

.PHONY: reliability
reliability: ## Run the fault matrix, in front of the fake and of real vLLMs, and write its table into docs/reliability.md (10 minutes)
	$(TARGET) setup
	cargo test --locked --test reliability --no-run
	read -r python gguf model < <($(TARGET) paths | python3 -c 'import json; print(*map(json.loads(input()).get, ("python", "gguf", "model")))'); \
		SIDEDRAFT_TARGET_PYTHON=$$python SIDEDRAFT_TARGET_GGUF=$$gguf SIDEDRAFT_TARGET_MODEL_DIR=$$model \
		cargo test --locked --test reliability -- --table --write docs/reliability.md $(RELIABILITY_FLAGS)

SOAK_SECONDS ?= 600

.PHONY: soak
soak: ## Load the sidecar for ten minutes (SOAK_SECONDS) and fail if its memory, files or tasks grow
	cargo test --locked --test reliability -- --soak $(SOAK_SECONDS)

FUZZ_SECONDS ?= 60

.PHONY: fuzz
fuzz: ## Fuzz request bodies, SSE streams and upstream replies, a minute (FUZZ_SECONDS) each, from fuzz/seeds
	cd fuzz && cargo build --release --locked
	cd fuzz && for target in request events reply; do \
		mkdir -p corpus/$$target artifacts/$$target; \
		cargo run --release --locked --quiet --bin $$target -- -max_total_time=$(FUZZ_SECONDS) -seed=1 -max_len=4096 \
			-timeout=10 -dict=json.dict -artifact_prefix=artifacts/$$target/ -print_final_stats=1 \
			corpus/$$target seeds/$$target; \
	done

.PHONY: gpu-tests
gpu-tests: ## Build what tests/gpu/run.sh needs on a machine with a GPU and no Rust: target/gpu
	mkdir -p target/gpu
	cargo build --release --locked
	cp target/release/sidedraft target/gpu/sidedraft
	cargo test --locked --lib --no-run --message-format json | python3 tests/gpu/test_binary.py target/gpu/tests
	tests/gpu/run.sh --dry-run

.PHONY: llama-cpp
llama-cpp: ## Compare the draft model's speed on one thread with llama.cpp's (needs Node; 7 minutes)
	$(TARGET) setup
	mkdir -p target/llama_cpp
	npm install --prefix target/llama_cpp --ignore-scripts --omit=optional --no-audit --no-fund \
		node-llama-cpp@3.22.1 @node-llama-cpp/linux-x64@3.22.1
	read -r python gguf < <($(TARGET) paths | python3 -c 'import json; print(*map(json.loads(input()).get, ("python", "gguf")))'); \
		$$python tests/llama_cpp/requantise.py $$gguf target/llama_cpp/smollm2-135m-instruct.Q8_0.gguf
	cargo build --release --locked --example draft_speed
	python3 tests/llama_cpp/compare.py --model target/llama_cpp/smollm2-135m-instruct.Q8_0.gguf \
		--speed target/release/examples/draft_speed --llama target/llama_cpp --json target/llama_cpp/speed.json

.PHONY: chart-check
chart-check: ## Check the Helm chart without a cluster: lint, golden files, schemas, probes, the dashboard's metrics
	cargo build --locked
	$(CHART) check --binary target/debug/sidedraft

.PHONY: chart-update
chart-update: ## Render the chart's golden files and the manifest in docs/kubernetes.md anew
	$(CHART) update

.PHONY: image-check
image-check: ## Check docker/ without Docker, and run the binary in a root like the image's (needs root and debootstrap)
	cargo build --locked
	$(IMAGE) check --binary target/debug/sidedraft
	cargo build --release --locked
	$(IMAGE) root --binary target/release/sidedraft

.PHONY: page-check
page-check: nextest ## Look at the sidecar's page with a browser (needs Debian's chromium)
	cargo nextest run --locked --test fake --run-ignored only page

.PHONY: screenshots
screenshots: nextest ## Take the pictures of the sidecar's page under load in docs/ anew (needs Debian's chromium; 4 minutes)
	SIDEDRAFT_PICTURES=$(CURDIR)/docs cargo nextest run --locked --test fake --run-ignored only under_load_every_box

.PHONY: lint
lint: ## Check formatting, clippy, documentation, the fuzzers' lock file and licences
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps
	cargo metadata --locked --manifest-path fuzz/Cargo.toml --format-version 1 > /dev/null
	python3 .ci/licences.py

# The history's tests start a real one; this installs it where it is missing, which takes root and Debian.
.PHONY: redis
redis:
	@redis-server --version > /dev/null 2>&1 || \
		{ apt-get update -qq && apt-get install -y -qq --no-install-recommends redis-server; }

.PHONY: nextest
nextest:
	@cargo nextest --version > /dev/null 2>&1 || cargo install cargo-nextest --locked
