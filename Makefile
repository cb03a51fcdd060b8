# Everything runs in .venv, which the first target you ask for creates. Needs Python >= 3.11 and make.

PYTHON ?= python3
# Two test processes, one torch thread each (tests/conftest.py), keep two cores busy; more threads
# only fight over them.
WORKERS ?= 2
# A file's fixtures are built in one process only; the slowest files come first (tests/conftest.py).
DISTRIBUTED = -n $(WORKERS) --dist loadfile --no-loadscope-reorder

BIN := .venv/bin
# What is installed, as empty files: torch alone, what the demo needs, everything that developers need.
TORCH := .venv/.torch
DEMO := .venv/.demo
DEV := .venv/.dev
FLOORS := .venv-floors/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test coverage masked check format floors

# A processor with AVX2 and nothing newer; what the emulator lacks of it is left out.
AVX2 := Haswell,-pcid,-x2apic,-tsc-deadline,-hle,-invpcid,-rtm

help: ## List the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1: \2/p' Makefile

demo: $(DEMO) ## Train, measure and try a classifier on real text, offline once installed
	@$(BIN)/fastbert demo

# What ROOM names: folders of tests, modules at the top (`ROOM="exits classifier"`), or files.
ROOM ?=
TESTS = $(foreach room,$(ROOM),$(or $(wildcard tests/$(room)/. tests/test_$(room).py $(room)), \
	$(error no tests called '$(room)': name a folder in tests, or tests/test_NAME.py by its NAME)))

test: $(DEV) ## Run the tests, or with ROOM=exits those of one room (or more, or files)
	@$(BIN)/pytest $(DISTRIBUTED) $(TESTS)

coverage: $(DEV) ## Run the tests, list what no test runs, fail below 95 % of branches
	@$(BIN)/pytest $(DISTRIBUTED) --cov --cov-report=term-missing:skip-covered

masked: $(DEV) ## Run the tests of int8 on an emulated processor with AVX2 only (qemu-user)
	@qemu-x86_64 -cpu $(AVX2) $(BIN)/python -m pytest tests/export/test_int8.py tests/runtime/test_int8_products.py

check: $(DEV) ## Check format, lint, types and the import contract
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(DEV) ## Format the code and repair what lint can repair
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

floors: $(FLOORS) ## Run the tests with the oldest packages that pyproject.toml allows
	@.venv-floors/bin/pytest $(DISTRIBUTED) -W ignore::DeprecationWarning # of newer packages

# torch comes first and pinned: where pip is given a folder of CPU wheels, this release is taken from
# it, while the open range in pyproject.toml would fetch the newest one, on Linux with gigabytes of
# CUDA libraries.
.venv/.torch .venv-floors/.torch:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "$(PYTHON) is missing or older than Python 3.11: name a newer one, as in 'make PYTHON=python3.12'" >&2; \
		exit 1; \
	}
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install torch==2.13.0
	@touch $@

$(DEMO): pyproject.toml $(TORCH)
	$(BIN)/pip install --editable '.[demo]'
	@touch $@

$(DEV): pyproject.toml $(TORCH)
	$(BIN)/pip install --editable '.[all,dev]'
	@touch $@ $(DEMO) # which is a part of it

$(FLOORS): pyproject.toml requirements-floors.txt .venv-floors/.torch
	.venv-floors/bin/pip install --constraint requirements-floors.txt --editable '.[all,dev]'
	@touch $@
