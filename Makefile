# What users type:      make demo | make test | make run MIXTURE=path | make stats ... | make help
# Everything lives in .venv; only Python (3.10 or newer), git and make are needed beforehand.

PYTHON ?= python3
VENV ?= .venv
MIXTURE ?= demo/mixture.json
ARGS ?=
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEV := $(VENV)/.installed-dev
DOCS := $(VENV)/.installed-docs

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow test-all coverage lint type check docs clean check-transformers check-lerobot \
	check-lerobot-tokenizer check-faults \
	check-ray torture test-lowest run stats heads speed-percentiles fit-tokenizer validate forecast report

help: ## Show this text
	@grep -hE '^[a-z%-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-18s %s\n", $$1, $$2}'
	@echo "  Pipeline targets: make run|stats|heads|speed-percentiles|fit-tokenizer|validate|forecast|report MIXTURE=path [ARGS='--workers 8']"

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(DEV): $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

$(DOCS): $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[docs]'
	@touch $@

demo: $(STAMP) ## Set up, write the demo mixture to demo/, prepare it, and report on it
	$(BIN)/opentau-prep demo --out demo
	$(BIN)/opentau-prep run --mixture-json demo/mixture.json
	@$(BIN)/opentau-prep report --mixture-json demo/mixture.json

test: $(DEV) ## Set up and run the tests, on all cores
	$(BIN)/python -m pytest -q -n auto -m "not slow" $(ARGS)

test-slow: $(DEV) ## The tests that take long: crashes, clusters, whole journeys
	$(BIN)/python -m pytest -q -n auto -m slow $(ARGS)

test-all: test test-slow ## All tests

coverage: export COVERAGE_FILE := $(CURDIR)/build/coverage/.coverage
coverage: $(DEV) ## Branch coverage of the package by the tests of `make test`
	rm -rf build/coverage && mkdir -p build/coverage
	$(BIN)/coverage run -m pytest -q -m "not slow" $(ARGS)
	$(BIN)/coverage combine -q
	$(BIN)/coverage report --skip-covered --sort=cover

lint: $(DEV) ## Check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: $(DEV) ## Check types
	$(BIN)/mypy

docs: $(DOCS) ## Build the docs site into build/site; a broken link fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

check: lint type test-all ## All of the above

LEROBOT_PYTHON ?= $(BIN)/python

SECONDS ?= 180

check-faults: $(DEV) ## Plant faults in the demo's datasets: whether validate finds what docs/faults.md says; ARGS='--every 7'
	$(BIN)/python scripts/bench_faults.py --check $(ARGS)

torture: $(DEV) ## Faults, signals, races and hostile input for SECONDS=180; ARGS='--parts faults'
	PYTHONPATH=$(CURDIR):tests $(BIN)/python -m torture --seconds $(SECONDS) $(ARGS)

test-lowest: ## Run the tests with the oldest dependencies; PYTHON=python3.10 for the oldest Python
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check uv
	.venv-lowest/bin/python -m uv pip install --quiet --python .venv-lowest/bin/python \
		--resolution lowest-direct -e '.[dev]'
	.venv-lowest/bin/python -m pytest -q $(ARGS)

check-transformers: $(DEV) ## Load a tokenizer folder under transformers 4.57 and 5, offline
	$(BIN)/python scripts/check_transformers.py $(ARGS)

check-lerobot: $(DEV) ## Run LeRobot 0.4.4's own code on datasets with our stats, and on a checkpoint of it; LEROBOT_PYTHON=python with lerobot
	PYTHONPATH=. $(LEROBOT_PYTHON) scripts/check_lerobot.py $(ARGS)
	PYTHONPATH=. $(LEROBOT_PYTHON) scripts/check_lerobot_checkpoint.py

check-lerobot-tokenizer: $(DEV) ## Encode and decode with LeRobot 0.4.4 on fitted tokenizers; LEROBOT_PYTHON as above
	PYTHONPATH=. $(LEROBOT_PYTHON) scripts/check_lerobot_tokenizer.py $(ARGS)

check-ray: $(DEV) ## Run the tests of the ray engine; installs ray
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[ray]'
	$(BIN)/python -m pytest -q tests/engine/test_cluster_map.py \
		tests/engine/test_cluster_interrupt.py tests/cli/test_cluster_engines.py $(ARGS)

# With `make -C`, a relative MIXTURE is the caller's: outputs go next to it, not into this checkout.
CALLERS := $(if $(wildcard $(PWD)/$(MIXTURE)),$(PWD)/$(MIXTURE),$(MIXTURE))

run stats heads speed-percentiles fit-tokenizer validate forecast report: $(STAMP) ## A command on MIXTURE=path
	$(BIN)/opentau-prep $@ --mixture-json $(CALLERS) $(ARGS)

bench-%: $(DEV) ## A benchmark: bench-frames, bench-heads, bench-help, bench-stats, bench-tokenizer, ...
	$(BIN)/python scripts/bench_$*.py $(ARGS)

clean: ## Remove what make made here, but not .venv
	rm -rf demo bench build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
