# `make help` lists what there is.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

TARGET := python3 tests/target/target.py
CHART := python3 tests/chart/chart.py
JUNIT := target/nextest/default/junit.xml

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## Start a real vLLM and the sidecar, run 16 rollouts both ways, print what was measured
	cargo build --release --locked
	python3 tests/demo/demo.py --binary target/release/sidedraft $(DEMO_FLAGS)

.PHONY: test
test: nextest ## Run every test: chart, unit, property, fake server, simulated GPU, real vLLM
	$(TARGET) setup
	cargo nextest run --locked --no-run
	$(CHART) check --binary target/debug/sidedraft
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
image-check: ## Check the Dockerfile without Docker: hadolint, pinned bases, its health check
	cargo build --locked
	python3 tests/image/check.py target/debug/sidedraft

.PHONY: page-check
page-check: nextest ## Look at the sidecar's page with a browser (needs Debian's chromium)
	cargo nextest run --locked --test fake --run-ignored only the_page_shows_the_figures

.PHONY: lint
lint: ## Check formatting, clippy, documentation and licences
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps
	python3 .ci/licences.py

.PHONY: nextest
nextest:
	@cargo nextest --version > /dev/null 2>&1 || cargo install cargo-nextest --locked
