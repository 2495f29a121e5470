# make quickstart   install into .venv and run the recipe tinyzero; again: go on, or report; FRESH=1: start over
# make test         the tests of a pull request (needs: pip install -e '.[dev]', or `make dev`)
PYTHON ?= python3
TORCH ?= torch
RECIPE ?= tinyzero
OUT ?= runs/quickstart
RUN_OPTIONS ?=
JOBS ?= 2

# Inside a virtual or conda environment that one is used; else .venv is made here. A torch that the chosen Python
# already has is kept: .venv then sees the packages of that Python.
ifneq ($(VIRTUAL_ENV)$(CONDA_PREFIX),)
  ENV := $(or $(VIRTUAL_ENV),$(CONDA_PREFIX))
else
  ENV := .venv
endif
BIN := $(ENV)/bin
# The stamps lie in the environment, so they go when it goes; they name this checkout.
INSTALLED := $(ENV)/.installed$(subst /,_,$(CURDIR))
INSTALLED_DEV := $(INSTALLED)_dev
HAS_TORCH = -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("torch") is None)'

export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: quickstart dev test test-slow lint bench clean

quickstart: $(INSTALLED)
	$(BIN)/r1kit run $(RECIPE) --out $(OUT) $(if $(filter-out 0,$(FRESH)),--fresh) $(RUN_OPTIONS)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "r1kit needs Python 3.11 or newer; $(PYTHON) is older. Name another: make PYTHON=python3.12"; exit 1; }
	if $(PYTHON) $(HAS_TORCH); then $(PYTHON) -m venv --system-site-packages $(ENV); else $(PYTHON) -m venv $(ENV); fi

$(INSTALLED): pyproject.toml | $(BIN)/python
	$(BIN)/python $(HAS_TORCH) || $(BIN)/python -m pip install $(TORCH)
	$(BIN)/python -m pip install -e .
	@touch $@

dev: $(INSTALLED_DEV)

$(INSTALLED_DEV): pyproject.toml | $(BIN)/python
	$(BIN)/python $(HAS_TORCH) || $(BIN)/python -m pip install $(TORCH)
	$(BIN)/python -m pip install -e '.[dev]'
	@touch $@ $(INSTALLED)

test: $(INSTALLED_DEV)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup -rs -m 'not slow' tests

test-slow: $(INSTALLED_DEV)
	$(BIN)/python -m pytest -rs -m slow tests

lint: $(INSTALLED_DEV)
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

bench: $(INSTALLED)
	$(BIN)/python -m pip install -q -e '.[bench]'
	for script in engine rl_step sft train verifiers; do $(BIN)/python benchmarks/$$script.py || exit 1; done

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
