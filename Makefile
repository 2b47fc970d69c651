PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PROCESSES ?= auto
# With pytest-xdist: as many processes as cores. tests/conftest.py says which tests stay together.
PARALLEL := -n $(PROCESSES)

.DEFAULT_GOAL := help
.PHONY: help run test check quick-tests lint style types bench

help:
	@echo "make run     set up, then run the default pipeline on the embedded images"
	@echo "make check   set up, then style, types and the quick tests: what to run before each commit"
	@echo "make test    set up, then style, types and the whole test suite"
	@echo "make lint    check style with ruff and types with mypy"
	@echo "make bench   set up with JAX, then measure the field's speed (ARGS='--json field.json')"
	@echo "make .venv   only set up the virtual environment"

# The stamp inside the environment is newer than pyproject.toml exactly when the installation is up to date.
.venv: $(VENV)/.installed
.PHONY: .venv

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed, as in: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --progress-bar off --quiet --editable '.[dev]'
	@touch $@

run: .venv
	$(BIN)/kedro run

test: .venv lint
	$(BIN)/python -m pytest $(PARALLEL)

# Side by side, each part's lines together; all parts run to their end, and one that fails makes the whole fail.
check: .venv
	@$(MAKE) --no-print-directory --jobs 2 --keep-going --output-sync=target types style quick-tests

quick-tests: .venv
	$(BIN)/python -m pytest -m 'not slow' $(PARALLEL) -q

lint: .venv style types

style: .venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv
	$(BIN)/mypy

bench: .venv
	@$(BIN)/python -c 'import jax' 2>/dev/null || \
		$(BIN)/python -m pip install --progress-bar off --quiet --editable '.[bench]'
	$(BIN)/python benchmarks/field.py $(ARGS)
