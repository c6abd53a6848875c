# Everything runs in .venv. torch is pinned and comes first, so that no build with CUDA is pulled where a CPU is enough.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check install -q -c constraints.txt
OFFLINE = HF_HUB_OFFLINE=1
EVERYDAY = not slow and not gpu and not network and not flagembedding and not pylate

.PHONY: setup demo test test-slow check fix bench parity clean

# What a user installs.
$(VENV)/.run: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) -U pip
	$(PIP) torch
	$(PIP) -e ".[all]"
	touch $@

# And what a developer needs besides.
$(VENV)/.develop: $(VENV)/.run
	$(PIP) --group test --group check
	touch $@

setup: $(VENV)/.develop

demo: $(VENV)/.run
	$(OFFLINE) $(BIN)/python demo/run.py

test: setup
	$(OFFLINE) $(BIN)/python -m pytest -m "$(EVERYDAY)"

test-slow: setup
	$(OFFLINE) $(BIN)/python -m pytest -m "slow and not gpu and not network"

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(OFFLINE) $(BIN)/python -m pytest tests/docs tests/cli/test_docs.py

fix: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup
	$(OFFLINE) $(BIN)/python benchmarks/startup.py
	$(OFFLINE) $(BIN)/python benchmarks/encode.py

# The libraries below pin versions that exclude ours, so each has an environment of its own.
.venv-flagembedding/.installed:
	$(PYTHON) -m venv .venv-flagembedding
	.venv-flagembedding/bin/python -m pip --disable-pip-version-check install -q -c constraints.txt torch
	.venv-flagembedding/bin/python -m pip --disable-pip-version-check install -q -c constraints.txt "FlagEmbedding==1.4.2" "transformers<5"
	touch $@

.venv-pylate/.installed:
	$(PYTHON) -m venv .venv-pylate
	.venv-pylate/bin/python -m pip --disable-pip-version-check install -q "pylate==1.6.0"
	touch $@

parity: setup .venv-flagembedding/.installed .venv-pylate/.installed
	$(OFFLINE) TRINE_FLAGEMBEDDING_PYTHON=.venv-flagembedding/bin/python TRINE_PYLATE_PYTHON=.venv-pylate/bin/python \
		$(BIN)/python -m pytest tests/parity -m "flagembedding or pylate"

clean:
	rm -rf $(VENV) .venv-flagembedding .venv-pylate build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
