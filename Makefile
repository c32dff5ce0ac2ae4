# Set-up goes into .venv; nothing else on the machine changes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo setup setup-dev test test-cluster test-engines lint clean

demo: setup
	$(BIN)/groundup run

setup: $(VENV)/.installed

setup-dev: $(VENV)/.installed-dev

# torch first, alone: a later requirement can then never pull another build of it.
$(VENV)/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check 'torch>=2.11,<2.14'
	$(BIN)/pip install --quiet --disable-pip-version-check -e .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

# Two tests at a time, on one thread each.
test: setup-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not cluster" -n 2 --dist worksteal

test-cluster: setup-dev
	$(BIN)/python -m pytest -m cluster

# DeepSpeed and Megatron-Core, in an environment of their own.
ENGINES := .venv-engines

$(ENGINES)/.installed: pyproject.toml
	test -x $(ENGINES)/bin/python || $(PYTHON) -m venv $(ENGINES)
	$(ENGINES)/bin/pip install --quiet --disable-pip-version-check 'torch>=2.11,<2.14'
	$(ENGINES)/bin/pip install --quiet --disable-pip-version-check -e '.[deepspeed,megatron]' 'pytest>=8.3' 'transformers>=5,<6'
	touch $@

test-engines: $(ENGINES)/.installed
	$(ENGINES)/bin/python -m pytest tests/engines -m engines

lint: setup-dev
	$(BIN)/ruff format --check src tests benchmarks tools launch
	$(BIN)/ruff check src tests benchmarks tools launch
	$(BIN)/mypy

# Models stay: `groundup clean` lists the artifacts that no run refers to.
clean:
	rm -rf $(VENV) $(ENGINES) .pytest_cache .mypy_cache .ruff_cache
