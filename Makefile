PYTHON ?= python3
LOCKS := $(wildcard f/kustomer/*.script.lock)
# What the targets run: the tests' own tools first.
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: demo test check bench schema lock

# Record a realistic message through the step, run as a Windmill worker runs it, and show the timeline.
demo: .venv/ready .venv-job/ready
	@python -m tests.demo

# Everything.
test: .venv/ready .venv-job/ready tests/node_modules
	@pytest -n auto --dist loadfile

# Lint, types and format.
check: .venv/ready
	@ruff check .
	@ruff format --check .
	@mypy

# Speed and memory against a naive port of the Hub's script, as ratios within one run.
bench: .venv/ready .venv-job/ready
	@python -m tests.bench

# Write the forms from the steps' types.
schema: .venv/ready tests/node_modules
	@python -m tests.form_schema

# Pin what the scripts import.
lock: .venv/ready
	@python -m tests.lock

# What the tests run in: the deployed locks, and tools.
.venv/ready: $(LOCKS) tests/requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11+ is needed: make PYTHON=python3.12")'
	@$(PYTHON) -m venv --clear .venv
	@pip install -q --disable-pip-version-check $$(grep ^uv== tests/requirements.txt)
	@uv pip install -q --python .venv $(LOCKS:%=-r %) -r tests/requirements.txt
	@touch $@

# What a job runs in: the deployed locks and nothing else, as on a worker.
.venv-job/ready: .venv/ready
	@uv venv -q --clear --python .venv/bin/python .venv-job
	@uv pip install -q --python .venv-job $(LOCKS:%=-r %)
	@touch $@

# Windmill's own CLI and parser; without Node the tests that need them say so.
tests/node_modules: tests/package-lock.json
	@if command -v npm >/dev/null; then cd tests && npm ci --silent --no-audit --no-fund && touch node_modules; \
	else echo "npm is missing, so the tests with Windmill's CLI will not run"; fi
