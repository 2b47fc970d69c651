PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help run test lint bench

help:
	@echo "make run    set up, then run the default pipeline on the embedded images"
	@echo "make test   set up, then run the whole test suite"
	@echo "make lint   check style with ruff"
	@echo "make bench  set up with JAX, then measure the field's speed (ARGS='--json field.json')"
	@echo "make .venv  only set up the virtual environment"

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
	$(BIN)/python -m pytest

lint: .venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: .venv
	@$(BIN)/python -c 'import jax' 2>/dev/null || \
		$(BIN)/python -m pip install --progress-bar off --quiet --editable '.[bench]'
	$(BIN)/python benchmarks/field.py $(ARGS)
