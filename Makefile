# Two commands do all set-up: `make train` and `make test`. Both create and reuse the environment in .venv.
PYTHON ?= python3
VENV ?= .venv
ARGS ?=
BIN := $(VENV)/bin

.PHONY: train test lint format types docs clean

train: $(VENV)/train.installed
	$(BIN)/python -m sb3_ncde.quickstart $(ARGS)

# All tests, with coverage; or a part of them without: make test ARGS=tests/test_sensors.py
test: $(VENV)/test.installed
	$(BIN)/python -m pytest $(or $(ARGS),-n 2 --cov)

lint: $(VENV)/test.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/test.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/test.installed
	$(BIN)/mypy

# The site, in site/. The extra `test` has all that `docs` has: where it is installed, nothing more is.
docs: $(or $(wildcard $(VENV)/test.installed),$(VENV)/docs.installed)
	$(BIN)/mkdocs build --strict

$(VENV)/%.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --constraint constraints.txt --editable ".[$*]"
	touch $@

clean:
	rm -rf $(VENV) runs site
