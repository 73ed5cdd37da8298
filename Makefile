# Thin: each target says what it runs; the set-up is in scripts/set-up, the checks of `make test` in scripts/check.
#
#   make test PYTHON=/usr/bin/python3.12    another Python for a new .venv
#   make test VENV=/tmp/venv                another place for it
#   make test JOBS=1 ARGS="-k lease"        how many tests at once; more arguments for pytest

SHELL := /bin/bash
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

export VENV ?= .venv
export PYTHON
export JOBS
export ARGS
BIN := $(VENV)/bin

.PHONY: help demo test soak perf venv format lint types layers coverage man reference clean

help: ## show this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 18

demo: ## index Python's standard library while workers are killed (under a minute)
	@scripts/set-up run
	@$(BIN)/python examples/stdlib_index/demo.py

test: ## format, lint, types, layers and tests, as CI runs them
	@scripts/set-up dev
	@scripts/check

soak: ## the long tests, with more Hypothesis examples
	@scripts/set-up dev
	@$(BIN)/python -m pytest -m soak --hypothesis-profile=soak --timeout=0 $(ARGS)

perf: ## Stem beside Celery, Dramatiq, taskiq and RQ (a quarter of an hour); on Postgres: ARGS="--broker postgres"
	@scripts/set-up dev
	@$(BIN)/python -m tests.perf $(ARGS)

venv: ## make .venv with Stem and the development tools
	@scripts/set-up dev

format: ## rewrite the code as ruff formats it
	@scripts/set-up dev
	@$(BIN)/python -m ruff format
	@$(BIN)/python -m ruff check --fix --select I --quiet

lint: ## ruff: format and rules
	@scripts/check format lint

types: ## mypy --strict
	@scripts/check types

layers: ## who may import whom
	@scripts/check layers

coverage: ## the tests again, with a report of what they leave out
	@scripts/set-up dev
	@$(BIN)/python -m coverage erase
	@$(BIN)/python -m coverage run -m pytest $(ARGS)
	@$(BIN)/python -m coverage combine --quiet
	@$(BIN)/python -m coverage report

man: ## build the man pages into cli/man
	@scripts/set-up run
	@COLUMNS=80 NO_COLOR=1 $(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir build/wheel .
	@ls cli/man/*.1

reference: ## write docs/reference from the code
	@scripts/set-up run
	@$(BIN)/python scripts/reference

clean: ## remove what was built; .venv stays
	@rm -rf build dist *.egg-info cli/man/*.1 .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis htmlcov
	@rm -f .coverage .coverage.*
	@find . -name __pycache__ -type d -not -path './.venv*' -prune -exec rm -rf {} +
