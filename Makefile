# thingctl: 'make help' lists what there is.

PYTHON ?= $(firstword $(foreach p,python3.13 python3.12 python3.11 python3,$(if $(shell $(p) -c 'print(1)' 2>/dev/null),$(p))))
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTEST_ARGS ?=
IN_PARALLEL := --numprocesses=auto --maxprocesses=4 --dist=worksteal

.DEFAULT_GOAL := help
.PHONY: help install run test check format bench screenshots clean

help: ## list these targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

install: $(STAMP) ## make .venv with the pinned versions

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "thingctl needs Python 3.11 or newer; this is $$($(PYTHON) --version 2>&1). Try: make PYTHON=/path/to/python3.11"; exit 1; }
	@echo "==> making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)
	@echo "==> installing thingctl and what it needs (a minute or so)"
	@$(BIN)/python -m pip install --disable-pip-version-check --progress-bar on -c constraints.txt -e '.[broker,cluster,fast,dev]'
	@touch $(STAMP)

run: $(STAMP) ## show the main job: a broker, a device, one command
	@$(BIN)/python examples/main_job.py

test: $(STAMP) ## run every check and every test (PYTEST_ARGS: some of them, in one process)
	@$(MAKE) --no-print-directory check
	@$(BIN)/python -m pytest $(or $(PYTEST_ARGS),$(IN_PARALLEL))

check: $(STAMP) ## lint, types, import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy $(filter-out %/peer_fastapi.py,$(wildcard bench/*.py))
	$(BIN)/lint-imports --no-logo

format: $(STAMP) ## format the source
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(STAMP) ## measure, side by side with peers
	@$(BIN)/python bench/run.py --quick
	@$(BIN)/python bench/agent_footprint.py

screenshots: $(STAMP) ## write pictures of the console to build/screenshots (needs chromium)
	@$(BIN)/python tests/console/screenshots.py build/screenshots

clean: ## remove what was made here
	rm -rf $(VENV) .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache dist build bench/results
