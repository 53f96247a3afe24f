# The version that Windmill runs, where it is there; any from 3.11 on will do.
PYTHON ?= $(shell python3.12 -c 'import ensurepip' 2>/dev/null && echo python3.12 || echo python3)
# By its own path, as another may come first below.
BASE := $(shell $(PYTHON) -c 'import sys; print(sys.executable)')
LOCKS := $(shell find f -name "*.script.lock")
# What the targets run: the tests' own tools first.
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: help demo try single test check bench schema lock pictures

help: ## list the targets; each sets up what it needs
	@awk -F ':.* ## ' '/^[a-z]+:.* ## / { printf "make %-8s %s\n", $$1, $$2 }' Makefile

demo: .venv/ready .venv-job/ready ## record messages and import a history as a Windmill worker does, and show the timelines
	@python -m tests.demo

# The text of the body goes through the environment untouched: neither make nor a shell reads what is in it.
unexport BODY
try: export TRY_BODY := $(value BODY)
try: .venv/ready .venv-job/ready ## run a step on input of your own: make try STEP=create_message BODY='{...}', or BODY=@event.json
	@python -m tests.try_step

single: .venv/ready ## print a step as one script to paste into Windmill: make single STEP=create_message; SCHEMA=1 prints its form
	@python -m tests.single

test: .venv/ready .venv-job/ready tests/node_modules ## prove everything that is promised
	@pytest -n auto --dist loadfile

check: .venv/ready ## lint, types and format
	@ruff check .
	@ruff format --check .
	@mypy

bench: .venv/ready .venv-job/ready ## speed and memory against a naive port of the Hub's script, and what an import of a history takes
	@python -m tests.bench

schema: .venv/ready tests/node_modules ## write the forms from the steps' types
	@python -m tests.form_schema

lock: ## write the locks from the pins at the top of the scripts
	@$(PYTHON) -m tests.lock

pictures: .venv/ready .venv-job/ready ## take pictures of the forms and of the demo's timeline; needs Chromium and 2 GB
	@python -m tests.pictures

# What the tests run in: the deployed locks, and tools. It is made anew where another Python is named.
ifneq ($(shell $(BASE) -V),$(shell .venv/bin/python -V 2>/dev/null))
.PHONY: .venv/ready
endif
.venv/ready: $(LOCKS) tests/requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11+ is needed: make PYTHON=python3.12")'
	@$(BASE) -m venv --clear .venv
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
