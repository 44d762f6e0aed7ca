# Every target sets up what it needs in .venv first; scripts/setup.sh does nothing when that is up to date.
SHELL := /bin/bash
BIN := .venv/bin
# Spinning OpenMP threads starve each other on shared cores.
export OMP_WAIT_POLICY ?= passive
export TOKENIZERS_PARALLELISM ?= false
export HF_HUB_DISABLE_TELEMETRY ?= 1

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev quickstart test lint bench clean

help: ## what there is
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /\1\t/' | expand -t 14

setup: ## .venv with what the pipelines need
	@scripts/setup.sh train

setup-dev: ## .venv with what the tests need too: vLLM's CPU build, pytest, ruff, mypy
	@scripts/setup.sh dev

quickstart: setup ## the main job on the shipped tiny models: judge, pair, train, evaluate, report
	@$(BIN)/rlaif run pipelines/quickstart.yaml

lint: setup-dev ## ruff and mypy
	@$(BIN)/ruff check rlaif tests benchmarks && $(BIN)/ruff format --check rlaif tests benchmarks && $(BIN)/mypy

test: lint ## lint, then every test
	@$(BIN)/pytest

bench: setup-dev ## what is measured; each script prints a table and, last, one line of JSON
	@set -e; for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python "$$script"; done

clean: ## remove .venv, builds and caches; runs/ stays
	@rm -rf .venv build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis
