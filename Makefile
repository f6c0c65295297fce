# scanloom: each target sets up .venv by itself. Needs Python 3.11 or newer and make; a GPU is used where there is one.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
WORKSPACE ?= demo-workspace
TEST_WORKERS ?= 2
BENCH_WORK ?= bench-out/lesions

# Real scans that some tests read; those tests are skipped where the folder is absent.
SHARED_DATA := $(abspath ../shared/data)
ifneq ($(wildcard $(SHARED_DATA)),)
SCANLOOM_TEST_DATA ?= $(SHARED_DATA)
export SCANLOOM_TEST_DATA
endif

PYTEST := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadfile -q

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow check bench bench-ingest bench-lesions clean

help: ## Show what can be made
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(STAMP) ## Set up .venv with every pinned dependency

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "scanloom needs Python 3.11 or newer; found $$($(PYTHON) --version 2>&1). Try: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing scanloom into $(VENV) (some minutes the first time)"
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(STAMP) ## Train both GANs on digital phantoms and write the report
	@$(BIN)/scanloom demo --workspace $(WORKSPACE)

test: $(STAMP) ## Run the tests
	@$(PYTEST) -m "not slow" tests

test-slow: $(STAMP) ## Run the minutes-long proofs
	@$(PYTEST) -m slow tests

check: $(STAMP) ## Lint, formatting, types, architecture
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

bench: $(STAMP) ## Measure speed
	@$(BIN)/python -m benchmarks

bench-ingest: $(STAMP) ## Measure reading DICOM beside dcm2niix, SimpleITK, MONAI and dicom2nifti
	@$(BIN)/python -m benchmarks ingest

bench-lesions: $(STAMP) ## Train and score the lesion GAN on real images of SCANLOOM_TEST_DATA (an hour of one core)
	@$(BIN)/python -m benchmarks.lesions_real prepare --work $(BENCH_WORK) --data $(SCANLOOM_TEST_DATA)
	@$(BIN)/python -m benchmarks.lesions_real train --work $(BENCH_WORK) --set brain64 --minutes 15
	@$(BIN)/python -m benchmarks.lesions_real score --work $(BENCH_WORK) --set brain64 --run lesions_class_folders-s0 --split test

clean: ## Remove .venv and tool caches; workspaces stay
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
