# One command for each thing people do here. `make` alone lists them.
# uv is used if the machine has it; otherwise it is put into .uv/ inside this folder, by pip into a private virtual environment.

UV_VERSION := 0.13.8
PYTHON ?= python3
UV := $(shell command -v uv 2>/dev/null || echo .uv/bin/uv)
RUN := $(UV) run
SRC := light_compute_project
# Most of the suite waits for processes to start, so a worker per core (at most four: each may take 2 GB) with a thread each
WORKERS := -n auto --maxprocesses 4 --dist loadfile
PYTEST := OMP_NUM_THREADS=1 $(RUN) pytest
# Where this is set (container images often do) every process compiles torch and Lightning anew: 8 s instead of 4 s to import them
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help baseline smoke test test-fast test-integration check format requirements clean

help:  ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

baseline: $(UV)  ## train the baseline on real text: no account, no download but packages, minutes on a laptop
	$(RUN) python $(SRC)/scripts/train.py +experiment=baseline $(ARGS)

smoke: $(UV)  ## check the model in seconds, then train the smallest one
	$(RUN) python $(SRC)/scripts/smoke_test.py
	$(RUN) python $(SRC)/scripts/test_training.py

test: $(UV)  ## every test that needs no GPU (this is what CI runs)
	$(PYTEST) $(SRC)/tests $(WORKERS) --durations 40 $(ARGS)

test-fast: $(UV)  ## unit tests only
	$(PYTEST) $(SRC)/tests/unit $(WORKERS) -m "not parity" $(ARGS)

test-integration: $(UV)  ## real processes, upstream's commands, kills and full disks
	$(PYTEST) $(SRC)/tests/integration $(WORKERS) $(ARGS)

check: $(UV)  ## format, lint, types, unit tests (import arrows included)
	$(RUN) ruff format --check $(SRC)
	$(RUN) ruff check $(SRC)
	$(RUN) mypy
	$(PYTEST) $(SRC)/tests/unit $(WORKERS) -m "not parity" -q

format: $(UV)  ## rewrite files the way `check` wants them
	$(RUN) ruff format $(SRC)
	$(RUN) ruff check --fix $(SRC)

requirements: $(UV)  ## export the resolved versions with hashes
	$(UV) export --quiet --format requirements.txt --no-header --no-annotate --no-emit-project --all-groups --output-file requirements.txt

clean:  ## remove the environment and caches, keep runs and data
	rm -rf .venv .uv .mypy_cache .ruff_cache .pytest_cache

.uv/bin/uv:
	@echo "uv is not installed: putting uv $(UV_VERSION) into .uv/"
	@$(PYTHON) -m venv .uv || { echo "$(PYTHON) cannot make a virtual environment. Install it (Debian: apt-get install python3-venv) or install uv."; exit 1; }
	@.uv/bin/python -m pip install --quiet --disable-pip-version-check "uv==$(UV_VERSION)"
