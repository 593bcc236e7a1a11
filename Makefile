# Every target works in a fresh checkout: the environment comes from run_local.sh.
.DEFAULT_GOAL := help
BIN := .venv/bin
SOURCES := k2beam transforms tests bench examples scripts setup.py
LOCK := $(BIN)/uv pip compile --quiet --python-version 3.11 --python-platform linux --generate-hashes \
	--custom-compile-command "make lock" $(if $(UPGRADE),--upgrade) --extra query --extra pandas --extra kafka --extra postgres
.PHONY: help environment check packages format unit test full soak bench docs lock wheel clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

environment: ## .venv with what development needs
	@./run_local.sh setup dev

check: environment ## ruff, its formatter in check mode, mypy, and the lint of metrics
	$(BIN)/ruff check $(wildcard $(SOURCES))
	$(BIN)/ruff format --check $(wildcard $(SOURCES))
	$(BIN)/mypy
	$(BIN)/python scripts/validate_metrics_labels.py

packages: environment ## known vulnerabilities of the locked packages; without network a note
	$(BIN)/python scripts/audit_packages.py

format: environment ## format the code and apply ruff's safe fixes
	$(BIN)/ruff check --fix $(wildcard $(SOURCES))
	$(BIN)/ruff format $(wildcard $(SOURCES))

unit: environment ## the tests without servers, on all cores; ARGS="-k gaps" goes to pytest
	$(BIN)/python -m pytest -q -n auto -m "not integration and not full" $(ARGS)

test: ## the tests of every change; ARGS="-k gaps" goes to pytest
	./run_local.sh test $(ARGS)

full: ## the tests and the long set
	./run_local.sh full $(ARGS)

soak: environment ## a live job on Flink with faults at random, judged at its end; ARGS="--minutes 60 --seed 1"
	$(BIN)/python -m tests.soak $(ARGS)

bench: environment ## the benchmarks
	$(BIN)/python -m bench $(ARGS)

docs: environment ## the documentation as a site, in build/site; a dead link or an option without help fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

lock: environment ## requirements/*.txt from setup.py; UPGRADE=1 takes new versions
	$(LOCK) setup.py requirements/build.in --output-file requirements/run.txt
	$(LOCK) --extra test -c requirements/run.txt setup.py requirements/build.in --output-file requirements/test.txt
	$(LOCK) --extra test --extra dev -c requirements/test.txt setup.py requirements/build.in \
		--output-file requirements/dev.txt

wheel: environment ## dist/*.whl
	$(BIN)/python -m build --wheel --no-isolation

clean: ## what builds and tools leave behind; the environment and the warehouse stay
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find k2beam transforms tests bench examples -type d -name __pycache__ -prune -exec rm -rf {} +
