# Each target sets up what it needs, once; later runs only do what is left to do.
#
#   make run     the counter, at http://127.0.0.1:8000; EXAMPLE=search: another of examples/
#   make test    all tests: Python, TypeScript, and the pages in a real Chromium
#   make lint    format, lint rules and types, checked
#   make format  the same, mended where a tool can
#   make bench   the figures of benchmarks/README.md
#   make docs    the pages under docs/, their code run
#   make clean   as after a fresh clone

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
EXAMPLE ?= counter
PAGES := $(wildcard examples/*/page)

# Every branch of these is covered by a test.
CORE := errors clock limits protocol equality registry graph store reactive items streams shared pace \
  async_effect resource payloads lanes options middleware threads events dispatch lifetimes \
  background finishing allowance tokens wakeup reports outbox exchange survival session hello roster watched runtime errands turns hosting watchdog origins \
  hardening/__init__ hardening/shutdown hardening/connections hardening/inbox hardening/requests \
  hardening/websockets storage/seam storage/memory storage/sqlite storage/redis storage/opening storage/write_behind \
  stored replica outage replication channel handover parking persistence \
  peer hosts gate headers authentication cookies asgi cli \
  recording/door recording/sealed recording/names recording/secrets recording/disguise recording/tape \
  recording/recorder recording/replay recording/script recording/as_test
COVERED := $(shell echo $(CORE:%=cacao/%.py) | tr ' ' ',')

.PHONY: run test test-client test-python lint format bench docs clean chromium redis

run: $(VENV)/.runtime examples/$(EXAMPLE)/page/dist/index.html
	cd examples/$(EXAMPLE) && exec $(abspath $(BIN))/hypercorn app:asgi

test: test-client test-python

test-client: client/dist/index.js
	cd client && npm run --silent check && npm run --silent test && npm run --silent size

test-python: $(VENV)/.dev $(PAGES:%=%/dist/index.html) chromium redis
	$(BIN)/coverage run -m pytest
	$(BIN)/coverage report --include='$(COVERED)' --fail-under=100 --skip-covered --show-missing

lint: $(VENV)/.dev client/node_modules/.package-lock.json
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	set -e; for each in examples/*/; do MYPYPATH=$$each $(BIN)/mypy $$each; done
	cd client && npm run --silent lint

format: $(VENV)/.dev client/node_modules/.package-lock.json
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	cd client && npm run --silent format

bench: $(VENV)/.bench
	$(BIN)/python benchmarks/reactive.py
	$(BIN)/python benchmarks/testing.py
	$(BIN)/python benchmarks/harnesses.py
	$(BIN)/python benchmarks/server.py
	$(BIN)/python benchmarks/broadcast.py
	$(BIN)/python benchmarks/watchdog.py

docs: $(VENV)/.dev
	$(BIN)/pytest tests/test_docs.py

clean:
	git clean -fdX

# Debian's Python may come without venv; the package that has it is installed if so.
$(VENV)/bin/pip:
	$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { apt-get update -qq && apt-get install -y -qq python3-venv; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: pyproject.toml | $(VENV)/bin/pip
	$(BIN)/pip install --quiet --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.runtime
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

$(VENV)/.bench: $(VENV)/.dev
	$(BIN)/pip install --quiet --editable '.[bench]'
	touch $@

client/node_modules/.package-lock.json: client/package-lock.json
	npm --prefix client ci --no-audit --no-fund --loglevel=error
	touch $@

client/dist/index.js: client/node_modules/.package-lock.json $(wildcard client/src/*)
	npm --prefix client run --silent build

$(PAGES:%=%/node_modules/.package-lock.json): %/node_modules/.package-lock.json: %/package-lock.json client/dist/index.js
	npm --prefix $* ci --no-audit --no-fund --loglevel=error
	touch $@

.SECONDEXPANSION: # for the $$*, the page
$(PAGES:%=%/dist/index.html): %/dist/index.html: %/node_modules/.package-lock.json $$(wildcard $$*/src/* $$*/index.html)
	npm --prefix $* run --silent build

# The browser tests fail, not skip, without a browser.
chromium:
	@test -n "$$CHROMIUM" || command -v chromium >/dev/null || { apt-get update -qq && apt-get install -y -qq chromium; }

# Nor without a Redis; each test starts its own, and needs no service of the system's.
redis:
	@command -v redis-server >/dev/null || { apt-get update -qq && apt-get install -y -qq redis-server; }
