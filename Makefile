# Two commands: `make run` installs and runs the main job, `make test` installs and passes the tests.
PYTHON ?= python3
VENV := .venv
FARL := $(VENV)/bin/farl

run: $(VENV)/installed
	$(FARL) run --task bounded_push --preset quick

test: $(VENV)/installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/python -m pytest

# The kill harness in its short form: five times SIGKILL and resumed, no number differs (a minute).
kills: $(VENV)/installed
	$(VENV)/bin/python -m pytest -n 0 -m slow tests/experiments/phases/test_kill_harness.py

# Every program of a run lowers for CUDA, for which no GPU is needed: all tasks, all methods.
lowering: $(VENV)/installed
	$(VENV)/bin/python -m pytest --dist worksteal -m slow tests/farl_jax/online/test_lowering.py

# All that only an NVIDIA GPU can tell, in at most 25 minutes a call; a second call does the rest (docs/gpu.md).
CUDA ?= cuda12
gpu: $(VENV)/installed
	$(VENV)/bin/python -m pip install --quiet --editable ".[$(CUDA),warp]"
	$(FARL) bench gpu

# The same stages at tiny sizes on any machine: it finds the kit's own errors.
gpu-dry: $(VENV)/installed
	$(FARL) bench gpu --dry

# Known vulnerabilities are looked up where pip-audit is installed; it must reach its database.
audit: $(VENV)/installed
	$(VENV)/bin/python -m pip check
	@if command -v pip-audit >/dev/null; \
	then pip-audit --strict --disable-pip --requirement requirements.lock; \
	else echo "no pip-audit here: known vulnerabilities were not looked up"; fi

# Versions and hashes of all that `make run` and `make test` install; run it after pyproject.toml changes.
lock:
	uv pip compile pyproject.toml --extra dev --python-version 3.11 --universal --generate-hashes \
	  --no-emit-index-url --no-header --quiet --output-file requirements.lock

# Reference pages, tables and pictures of the docs, made from code and stored rows.
pages: $(VENV)/installed
	$(VENV)/bin/python -m docs.tools.reference
	$(VENV)/bin/python -m docs.tools.pictures
	$(VENV)/bin/python -m docs.tools.tables

# The site, in build/site. It needs the extra `docs`.
docs: pages
	$(VENV)/bin/python -m pip install --quiet --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/python -m mkdocs build --strict

# Types of the public API (`tool.pyrefly` in pyproject.toml).
types: $(VENV)/installed
	$(VENV)/bin/pyrefly check --python-interpreter-path $(VENV)/bin/python

# The README's film, drawn anew: the quick run of `make run`, Uni-O4 and FARL from the same start.
film: $(VENV)/installed
	$(FARL) run --task bounded_push --preset quick --resume
	$(FARL) render runs/bounded_push/quick/seed0 --beside
	cp runs/bounded_push/quick/seed0/farl/beside.gif docs/pictures/beside.gif

# Wheel and sdist, in dist/.
release: $(VENV)/installed
	$(VENV)/bin/python -m pip install --quiet hatchling
	$(VENV)/bin/python -m hatchling build -d dist

$(VENV)/installed: pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --upgrade pip
	$(VENV)/bin/python -m pip install --quiet --require-hashes --requirement requirements.lock
	$(VENV)/bin/python -m pip install --quiet --no-deps --editable .
	touch $@

.PHONY: run test kills lowering gpu gpu-dry audit lock pages docs types film release
