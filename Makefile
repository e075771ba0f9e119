# `make demo` and `make test` need Python 3.10 to 3.13 with venv, and nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
LINTER := $(VENV)/linter
SITE_BUILDER := $(VENV)/site_builder
SITE := site
PYTEST := $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder
BENCH := .bench
SOURCES := $(shell find far_ho_tf -name '*.py')
CHECK_PYTHON = $(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if (3, 10) <= v < (3, 14) else "far_ho_tf needs Python 3.10 to 3.13; this is %d.%d. Name another: make PYTHON=python3.12 ..." % v[:2])'

export TF_CPP_MIN_LOG_LEVEL ?= 3
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help install demo test test-all test-rest bench lint format docs clean

help:  ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 10

install: $(INSTALLED)  ## Create .venv and install the package and what it needs

$(INSTALLED): setup.py pyproject.toml $(SOURCES)
	@$(CHECK_PYTHON)
	$(BIN)/python -m pip --version > /dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25'  # Older ones search for ever.
	@rm -rf build  # Modules that are gone would be installed from there.
	@echo "Installing; TensorFlow takes a minute or more the first time."
	$(BIN)/python -m pip install --quiet '.[examples,tests]'
	touch $@

$(LINTER): setup.py | $(INSTALLED)
	$(BIN)/python -m pip install --quiet '.[lint]'
	touch $@

$(SITE_BUILDER): setup.py | $(INSTALLED)
	$(BIN)/python -m pip install --quiet '.[docs]'
	touch $@

demo: install  ## Data hyper-cleaning on the embedded MNIST images
	$(BIN)/python examples/data_hyper_cleaning/run.py

test: install  ## Run representative cases of every test, in two processes
	$(PYTEST) -m 'not thorough'

test-all: install  ## Run the whole test suite
	$(PYTEST)

test-rest: install  ## Run what `make test` leaves out
	$(PYTEST) -m thorough

bench: $(BENCH)/installed  ## Measure beside other tools; WORKLOAD=1,2 TOOL=far,jax: a part
	$(BENCH)/bin/python benchmarks/peers/run.py $(if $(WORKLOAD),--workload=$(WORKLOAD)) $(if $(TOOL),--tool=$(TOOL))

$(BENCH)/installed: setup.py pyproject.toml $(SOURCES) benchmarks/peers/requirements.txt
	@$(CHECK_PYTHON)
	$(BENCH)/bin/python -m pip --version > /dev/null 2>&1 || $(PYTHON) -m venv --clear $(BENCH)
	$(BENCH)/bin/python -m pip install --quiet 'pip<24.1'  # Newer ones refuse Betty.
	$(BENCH)/bin/python -m pip install --quiet --no-deps betty-ml==0.1.1
	$(BENCH)/bin/python -m pip install --quiet --upgrade 'pip>=25'
	@rm -rf build
	$(BENCH)/bin/python -m pip install --quiet . -r benchmarks/peers/requirements.txt
	touch $@

lint: $(LINTER)  ## Check style, format and types
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m pyright --pythonpath $(BIN)/python

format: $(LINTER)  ## Mend style and format
	$(BIN)/python -m ruff check --fix .
	$(BIN)/python -m ruff format .

docs: $(SITE_BUILDER)  ## Build the documents as a site, in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --site-dir $(SITE)

clean:  ## Remove .venv and everything made by it
	rm -rf $(VENV) $(BENCH) $(SITE) .compile_cache build *.egg-info .pytest_cache .ruff_cache
