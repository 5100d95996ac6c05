# Two commands: `make run` installs and runs the main job, `make test` installs and passes the tests.
PYTHON ?= python3
VENV := .venv
FARL := $(VENV)/bin/farl

run: $(VENV)/installed
	$(FARL) run --task bounded_push --preset quick

test: $(VENV)/installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/python -m pytest

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --upgrade pip
	$(VENV)/bin/python -m pip install --quiet --editable '.[dev]'
	touch $@

.PHONY: run test
