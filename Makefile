# One command for each thing people do here. `make` alone lists them.
# uv is used if the machine has it; otherwise it is put into .uv/ inside this folder, by pip into a private virtual environment.
# Packages are installed into .venv/ when requirements.txt or pyproject.toml has changed, and the hash of every file is checked.
# `make baseline` needs none of the tools of development (the dev group) and leaves them to the other commands.

PYTHON ?= python3
UV := $(shell command -v uv 2>/dev/null || echo .uv/bin/uv)
VENV := $(or $(UV_PROJECT_ENVIRONMENT),.venv)
INSTALLED := $(VENV)/requirements-installed
RUNTIME := $(VENV)/requirements-installed-without-dev
RUN := $(UV) run --no-sync
SRC := light_compute_project
PINS := $(UV) run --quiet --no-project python $(SRC)/tools/pins.py
EXPORT := $(UV) export --quiet --format requirements.txt --no-header --no-annotate --no-emit-project --all-groups --all-extras \
	--output-file requirements.txt
# Environments of their own, whose packages and ours exclude each other
ISOLATED := $(patsubst %.in,%,$(wildcard $(SRC)/src/litgpt_core/data/stream/datatrove*.in $(SRC)/docs/site/requirements.in))
COMPILE = $(UV) pip compile --quiet --no-config --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	--exclude-newer $$(sed -n 's/^exclude-newer = "\(.*\)"/\1/p' pyproject.toml)
FREE = free $(if $(BEFORE),--before $(BEFORE)) $(PACKAGES)
# Most of the suite waits for processes to start, so a worker per core (at most four: each may take 2 GB) with a thread each.
# Files are handed out in the order in which conftest.py puts them: the long ones first, so that no worker is left with one at the end
WORKERS := -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
PYTEST := OMP_NUM_THREADS=1 $(RUN) pytest
# Tests of signals, several processes and browsers run after all others, one at a time; there a failure is repeated once and reported
define PASSES
failed=0; \
echo "Pass 1 of 2: in parallel"; $(PYTEST) $(1) --pass parallel $(WORKERS) || failed=1; \
echo "Pass 2 of 2: one at a time"; $(PYTEST) $(1) --pass serial || failed=1; \
exit $$failed
endef
# Where this is set (container images often do) every process compiles torch and Lightning anew: 8 s instead of 4 s to import them
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help environment baseline smoke test test-nightly test-parity test-fast test-integration check types site format requirements outdated resolve-upgrade upgrade clean

help:  ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

environment: $(INSTALLED)  ## install exactly what requirements.txt lists, hashes checked; the other commands do it first

baseline: $(RUNTIME)  ## train the baseline on real text: no account, no download but packages, minutes on a laptop
	$(RUN) python $(SRC)/scripts/train.py +experiment=baseline $(ARGS)

smoke: $(INSTALLED)  ## check the model in seconds, then train the smallest one
	$(RUN) python $(SRC)/scripts/smoke_test.py
	$(RUN) python $(SRC)/scripts/test_training.py

test: $(INSTALLED)  ## the tests that need no GPU and are not marked nightly (this is what CI runs)
	@$(call PASSES,$(SRC)/tests --durations 20 $(ARGS))

test-nightly: $(INSTALLED)  ## every test that needs no GPU, the slow and rare ones too: before a release, and every night
	@$(call PASSES,$(SRC)/tests --nightly --durations 40 $(ARGS))

test-parity: $(INSTALLED)  ## what is compared with upstream: contract and parity tests, all of them
	@$(call PASSES,$(SRC)/tests --nightly -m parity $(ARGS))

test-fast: $(INSTALLED)  ## unit tests only
	@$(call PASSES,$(SRC)/tests/unit -m "not parity" $(ARGS))

test-integration: $(INSTALLED)  ## real processes, upstream's commands, kills and full disks
	@$(call PASSES,$(SRC)/tests/integration $(ARGS))

check: $(INSTALLED)  ## format, lint, types, unit tests (import arrows included)
	$(RUN) ruff format --check $(SRC)
	$(RUN) ruff check $(SRC)
	$(MAKE) types
	@$(call PASSES,$(SRC)/tests/unit -m "not parity" -q)

types: $(INSTALLED)  ## types alone
	$(RUN) mypy

site: $(UV)  ## the pages as a site, in build/site; a link that leads nowhere is an error
	$(PYTHON) $(SRC)/tools/site.py build/site --uv $(abspath $(UV))

format: $(INSTALLED)  ## rewrite files the way `check` wants them
	$(RUN) ruff format $(SRC)
	$(RUN) ruff check --fix $(SRC)

requirements: $(UV)  ## resolve anew within the pins: requirements.txt with hashes, and from it the pins in pyproject.toml
	$(EXPORT)
	$(PINS) write
	$(foreach file,$(ISOLATED),$(COMPILE) $(file).in --output-file $(file).txt;)

outdated: $(UV)  ## what upgrade would raise; nothing is changed
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && cp pyproject.toml requirements.txt README.md Makefile "$$folder" && \
	mkdir "$$folder/$(SRC)" && cp -R $(SRC)/tools "$$folder/$(SRC)" && \
	$(MAKE) --silent --no-print-directory -C "$$folder" UV="$(abspath $(UV))" resolve-upgrade

resolve-upgrade:
	@cp requirements.txt requirements-before.txt
	@$(PINS) $(FREE)
	@rm -f uv.lock
	@$(EXPORT)
	@$(PINS) write
	@$(PINS) changes requirements-before.txt

upgrade: $(UV)  ## raise versions, say which, test them: all, or PACKAGES="torch litgpt==0.5.14"; BEFORE=2026-12-24 for a later date
	@$(MAKE) --no-print-directory resolve-upgrade
	$(MAKE) test-parity
	@$(PINS) changes requirements-before.txt
	@rm requirements-before.txt
	@echo "Contract and parity tests pass. Next: make test-nightly, then commit pyproject.toml and requirements.txt with this table."

clean:  ## remove the environment and caches, keep runs and data
	rm -rf $(VENV) .uv .mypy_cache .ruff_cache .pytest_cache

define INSTALL
@echo "Installing the packages of requirements.txt into $(VENV)/. The first time they are downloaded: minutes, 3 GB on Linux."
@[ -e $(VENV)/pyvenv.cfg ] || $(UV) venv --quiet --allow-existing $(VENV)
@$(UV) pip install --quiet --python $(VENV) --require-hashes --constraints requirements.txt --build-constraints requirements.txt \
	--requirements pyproject.toml --group corpus $(1)
@$(UV) pip install --quiet --python $(VENV) --no-deps --no-build-isolation --editable .
endef

$(INSTALLED): requirements.txt pyproject.toml | $(UV)
	$(call INSTALL,--group dev)
	@touch $@ $(RUNTIME)

$(RUNTIME): requirements.txt pyproject.toml | $(UV)
	$(call INSTALL)
	@touch $@

.uv/bin/uv: .ci/uv.txt
	@echo "uv is not installed: putting $$(sed -n 's/ .*//; /^uv==/p' .ci/uv.txt) into .uv/"
	@$(PYTHON) -m venv .uv || { echo "$(PYTHON) cannot make a virtual environment. Install it (Debian: apt-get install python3-venv) or install uv."; exit 1; }
	@.uv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: --requirement .ci/uv.txt
	@touch $@
