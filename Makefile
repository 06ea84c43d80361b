# Farcall. `make` alone lists what there is. Every target sets up .venv by itself.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PY := .venv/bin/python
# On CI's busy machines a test of real processes that fails is run once more, and reported as RERUN; not at a desk.
RERUN := $(if $(CI),--reruns 1 -rR)

.PHONY: help setup demo demo-stop test test-quick test-system check format types imports bench bench-servers bench-parts chaos screenshots run clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*?## ' $(MAKEFILE_LIST) | awk -F ':.*?## ' '{printf "  make %-13s %s\n", $$1, $$2}'

setup: ## Make .venv and install everything that uv.lock names
	@scripts/setup.sh

demo: setup ## Start a service and an endpoint, and run a model selection on handwritten digits
	@$(PY) examples/demo.py

demo-stop: setup ## Stop what `make demo` left running
	@$(PY) examples/demo.py --stop

run: setup ## Start a service in the foreground (Ctrl-C ends it)
	@.venv/bin/farcall-service start

check: setup format types imports ## Format, lint, types, import directions (seconds)

format:
	@.venv/bin/ruff format --check . && .venv/bin/ruff check .

types:
	@.venv/bin/mypy -p farcall

imports:
	@.venv/bin/lint-imports --no-cache

test: setup check ## Everything: checks, unit tests, and the system tests with real processes and kills
	@.venv/bin/pytest -n 2 --dist loadgroup -m "not system" $(RERUN)
	@.venv/bin/pytest -n 3 --dist loadfile -m system $(RERUN)

test-quick: setup ## Tests that start no processes (under a minute)
	@.venv/bin/pytest -n 2 --dist loadgroup -m "not system" -q

test-system: setup ## Real processes and kills; installs PostgreSQL, RabbitMQ and HAProxy if it may, else skips what needs them
	@scripts/ci-services.sh || [ -z "$(CI)" ]
	@.venv/bin/pytest -n 3 --dist loadfile -m system $(RERUN)

bench: setup ## Measure speed and size; one JSON line per figure
	@$(PY) -m benchmarks

bench-servers: setup ## Memory, idle endpoints and cost per task once more, over PostgreSQL and RabbitMQ (some minutes)
	@$(PY) -m benchmarks --only servers-backpressure,servers-endpoints,servers-queued,servers-idle

bench-parts: setup ## Measure the broker, the AMQP client and the service each by itself
	@$(PY) benchmarks/broker.py && $(PY) benchmarks/amqp.py && $(PY) benchmarks/service.py

chaos: setup ## Kill, stop and cut off parts while 5,000 tasks flow, and count (CHAOS_SEED, CHAOS_TASKS, CHAOS_SETUP, …)
	@$(PY) tests/chaos

screenshots: setup ## Take pictures of every page of the console again, for docs/images (needs Chromium)
	@$(PY) tests/console/screenshots.py

clean: ## Remove .venv, caches and the demo's data (run `make demo-stop` first)
	rm -rf .venv .demo .bench .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
