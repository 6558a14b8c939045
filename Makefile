# Two commands for a newcomer: `make demo` and `make test`. Both need only Python 3.10+ and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export HF_HUB_OFFLINE := 1
export HF_DATASETS_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: help demo test lint types tests slow benchmarks clean

help:  ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

$(VENV)/.run: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("autoprompt needs Python 3.10 or newer; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	$(PIP) install --constraint constraints.txt --editable ".[dev]"
	@touch $@

demo: $(VENV)/.run  ## find a better prompt for the bundled review task; writes best_prompt.txt
	$(BIN)/autoprompt optimize reviews --model bundled:causal --budget 6000 --run-dir runs/demo --output best_prompt.txt
	@echo; echo "best_prompt.txt:"; cat best_prompt.txt
	@echo; echo "read back and scored again:"
	$(BIN)/autoprompt evaluate reviews --model bundled:causal --prompt best_prompt.txt

test: lint types tests  ## lint, types, tests

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

tests: $(VENV)/.dev
	$(BIN)/pytest -n 2 --dist worksteal

slow: $(VENV)/.dev  ## the long tests
	$(BIN)/pytest -m slow

benchmarks: $(VENV)/.dev  ## what scoring costs, against the usual ways (an hour; or python -m tests.benchmarks --help)
	for workload in A B C; do $(BIN)/python -m tests.benchmarks $$workload; done
	$(BIN)/python -m tests.benchmarks memory

clean:  ## remove what the commands made
	rm -rf $(VENV) runs best_prompt.txt best_prompt.json .mypy_cache .ruff_cache .pytest_cache dist
