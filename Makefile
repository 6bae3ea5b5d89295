# Everything a clone needs: `make demo` and `make test`. The environment lives in .venv and is made once.
SHELL := /bin/bash
# The first interpreter that really runs and is new enough: a pyenv shim may exist and still fail.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null && { command -v $$p; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
export RAY_USAGE_STATS_ENABLED := 0
export MLFLOW_DISABLE_TELEMETRY := true
export DO_NOT_TRACK := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Python keeps what it compiled: hundreds of processes are started, and each would compile everything anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo test test-clusters check lint types layers policies format bench clean lock

help:  ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

$(VENV)/.ready: constraints.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "no Python 3.11 to 3.13 found; install one, or run: make PYTHON=/path/to/python3.11 demo" >&2; exit 2; }
	@echo "setting up $(VENV) (pinned and hashed packages; once, one to three minutes)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@# Every package is in the file: left to itself, pip's resolver asks for hashes of newer ones where an extra is wanted.
	@$(BIN)/python -m pip install -q --no-deps --require-hashes -r constraints.txt
	@$(BIN)/python -m pip install -q --no-deps --no-build-isolation -e .
	@touch $@

setup: $(VENV)/.ready  ## create .venv with pinned packages

demo: setup  ## run the main job end to end on embedded defaults
	@$(BIN)/trainguard demo

# Each test file, and all that use a Ray cluster, stay together (tests/conftest.py): of three processes two begin with
# a cluster and often wait for it; the third works meanwhile.
WORKERS ?= 3
test: setup  ## run all tests
	@$(BIN)/python -m pytest -q -n $(WORKERS)

test-clusters: setup  ## faults and large libraries on clusters of their own (root, 13 to 20 minutes)
	@$(BIN)/python -m pytest -q -m clusters tests/compute_guard

lint: setup  ## ruff: rules and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: setup  ## mypy --strict on src
	@$(BIN)/mypy

layers: setup  ## import-linter: the rings of ARCHITECTURE.md
	@$(BIN)/lint-imports

policies: setup  ## gate, schemas and tests of the shipped Rego
	@$(BIN)/trainguard policy check
	@$(BIN)/trainguard policy test

check: lint types layers policies test  ## what CI runs

format: setup  ## let ruff rewrite the code
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

bench: setup  ## print the measures of benchmarks/ (minutes)
	@for b in benchmarks/*.py; do echo "== $$b"; $(BIN)/python $$b || exit 1; done

lock: setup  ## resolve the pins in constraints.txt anew (needs uv)
	uv pip compile pyproject.toml --all-extras --group dev --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header -o constraints.txt

clean:  ## remove what make made
	rm -rf $(VENV) .demo build dist .pytest_cache .mypy_cache .ruff_cache
