# Everything runs in .venv. torch is pinned and comes first, so that no build with CUDA is pulled where a CPU is enough.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check install -q -c constraints.txt
OFFLINE = HF_HUB_OFFLINE=1
EVERYDAY = not slow and not gpu and not network and not flagembedding and not pylate and not llm2vec

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

# Left out is what llm2vec asks for and never imports: datasets, evaluate, scikit-learn.
.venv-llm2vec/.installed:
	$(PYTHON) -m venv .venv-llm2vec
	.venv-llm2vec/bin/python -m pip --disable-pip-version-check install -q -c constraints.txt torch
	.venv-llm2vec/bin/python -m pip --disable-pip-version-check install -q -c constraints.txt "transformers==4.44.2" "peft==0.12.0" "numpy<2"
	.venv-llm2vec/bin/python -m pip --disable-pip-version-check install -q --no-deps "llm2vec==0.2.3"
	touch $@

parity: setup .venv-flagembedding/.installed .venv-pylate/.installed .venv-llm2vec/.installed
	$(OFFLINE) TRINE_FLAGEMBEDDING_PYTHON=.venv-flagembedding/bin/python TRINE_PYLATE_PYTHON=.venv-pylate/bin/python \
		TRINE_LLM2VEC_PYTHON=.venv-llm2vec/bin/python \
		$(BIN)/python -m pytest tests/parity -m "flagembedding or pylate or llm2vec"

clean:
	rm -rf $(VENV) .venv-flagembedding .venv-pylate .venv-llm2vec build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
