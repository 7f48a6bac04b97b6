# One command for each wish. Everything installs into .venv from the project's own files.
PY := .venv/bin/python
export OMP_WAIT_POLICY ?= PASSIVE
export TOKENIZERS_PARALLELISM ?= false

.PHONY: help setup demo test test-all check bench clean

help:
	@echo "make demo       set up, then a small language model learns to reason (about 5 minutes on two cores)"
	@echo "make test       set up and run the tests"
	@echo "make test-all   the tests, the long ones too"
	@echo "make check      lint, format and types"
	@echo "make bench      quick benchmarks beside the peers"

setup: .venv/.ready

.venv/.ready: pyproject.toml constraints.txt
	test -x $(PY) || python3 -m venv .venv
	$(PY) -m pip install --quiet --upgrade pip
	$(PY) -m pip install --quiet -c constraints.txt torch
	$(PY) -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

demo: setup
	.venv/bin/logpi demo $(ARGS)

test: setup
	$(PY) -m pytest $(ARGS)

test-all: setup
	$(PY) -m pytest -m "slow or not slow" $(ARGS)

check: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/pyright

bench: setup
	$(PY) benchmarks/engine.py
	$(PY) benchmarks/learner.py

clean:
	rm -rf .venv build dist .pytest_cache .ruff_cache
