# thingctl: 'make help' lists what there is.

PYTHON ?= $(firstword $(foreach p,python3.13 python3.12 python3.11 python3,$(if $(shell $(p) -c 'print(1)' 2>/dev/null),$(p))))
VENV := .venv
BIN := $(VENV)/bin
SERVICE_VENV := /opt/thingctl
RUN_STAMP := $(VENV)/.installed-run
STAMP := $(VENV)/.installed
PIP_INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --progress-bar on -c constraints.txt
PYTEST_ARGS ?=
IN_PARALLEL := --numprocesses=auto --maxprocesses=4 --dist=worksteal

CHECK_PYTHON := $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
  echo "thingctl needs Python 3.11 or newer; this is $$($(PYTHON) --version 2>&1). Try: make PYTHON=/path/to/python3.11"; exit 1; }

.DEFAULT_GOAL := help
.PHONY: help install run wheel service test check format bench screenshots clean

help: ## list these targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

install: $(STAMP) ## make .venv with the pinned versions of everything

$(RUN_STAMP): pyproject.toml constraints.txt
	@$(CHECK_PYTHON)
	@echo "==> making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)
	@echo "==> installing thingctl and what the broker needs (100 MB; half a minute)"
	@$(PIP_INSTALL) -e '.[broker]'
	@touch $(RUN_STAMP)

$(STAMP): $(RUN_STAMP)
	@echo "==> installing what the checks and tests need (350 MB; a minute or so)"
	@$(PIP_INSTALL) -e '.[broker,cluster,fast,dev]'
	@touch $(STAMP)

run: $(RUN_STAMP) ## show the main job: a broker, a device, one command, the console
	@$(BIN)/python examples/main_job.py

wheel: $(RUN_STAMP) ## build dist/thingctl-VERSION-py3-none-any.whl
	@$(PIP_INSTALL) --quiet hatchling
	@rm -f dist/thingctl-*.whl
	@$(BIN)/python -m pip wheel --disable-pip-version-check --no-build-isolation --no-deps --wheel-dir dist .
	@ls dist/thingctl-*.whl

service: ## make the broker a systemd service, installed in /opt/thingctl (with sudo)
	@$(CHECK_PYTHON)
	@$(PYTHON) -m venv $(SERVICE_VENV)
	@echo "==> building the wheel, and installing it with what the broker needs into $(SERVICE_VENV)"
	@rm -f dist/thingctl-*.whl
	@$(SERVICE_VENV)/bin/pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .
	@$(SERVICE_VENV)/bin/pip install --quiet --disable-pip-version-check -c constraints.txt \
	  "$$(ls dist/thingctl-*.whl)[broker,fast]"
	@$(SERVICE_VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps --force-reinstall dist/thingctl-*.whl
	@$(SERVICE_VENV)/bin/thingctl install

test: $(STAMP) ## run every check and every test (PYTEST_ARGS: some of them, in one process)
	@$(MAKE) --no-print-directory check
	@$(BIN)/python -m pytest $(or $(PYTEST_ARGS),$(IN_PARALLEL))

check: $(STAMP) ## lint, types, import rules, spelling
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy $(filter-out %/peer_fastapi.py,$(wildcard bench/*.py))
	$(BIN)/lint-imports --no-logo
	$(BIN)/codespell
	$(BIN)/python -m pytest -q tests/test_layout.py tests/test_names.py tests/test_once.py tests/test_prose.py

format: $(STAMP) ## format the source
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(STAMP) ## measure, side by side with peers
	@$(BIN)/python bench/run.py --quick
	@$(BIN)/python bench/agent_footprint.py

screenshots: $(STAMP) ## write pictures of the console to build/screenshots and docs/console.png (needs chromium)
	@$(BIN)/python tests/console/screenshots.py build/screenshots
	@cp build/screenshots/details-light.png docs/console.png

clean: ## remove what was made here
	rm -rf $(VENV) .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache dist build bench/results
