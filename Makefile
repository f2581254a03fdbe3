# Two commands do all set-up: `make train` and `make test`. Both create and reuse the environment in .venv.
PYTHON ?= python3
VENV ?= .venv
ARGS ?=
BIN := $(VENV)/bin

.PHONY: train test lint types clean

train: $(VENV)/train.installed
	$(BIN)/python -m sb3_ncde.quickstart $(ARGS)

test: $(VENV)/test.installed
	$(BIN)/python -m pytest -n 2 --cov $(ARGS)

lint: $(VENV)/test.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/test.installed
	$(BIN)/mypy

$(VENV)/%.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --constraint constraints.txt --editable ".[$*]"
	touch $@

clean:
	rm -rf $(VENV) runs
