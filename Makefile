# Every target sets up what it needs, once: the virtual environment and, on demand, the programs.
# The one thing to have is Python 3.11 to 3.14 (with venv); Go >= 1.26 is used where it is found.

PYTHON ?= python3
STACK ?= local
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
LOCKED := $(VENV)/.locked
READY := $(VENV)/.ready
PYTEST := $(BIN)/pytest
# Three times as many as there are cores, up to eight: end-to-end tests mostly wait.
WORKERS ?= $(shell n=$$(getconf _NPROCESSORS_ONLN); echo $$(( n < 3 ? 3 * n : 8 )))
# Tests whose inputs have not changed since they passed are answered, unless FRESH is set.
UNCHANGED = --unchanged=$(if $(FRESH)$(COV),check,answer)
# With COV the lines and branches of src/stackproof that ran are counted, and no test is answered.
COVERAGE = $(if $(COV),--cov --cov-report=term:skip-covered --cov-report=xml:build/coverage.xml)
PROGRAM = $$($(BIN)/python -c 'from stackproof.toolchain import programs; print(programs.find("$(1)"))')
HELM = $(call PROGRAM,helm)
CODE := src tests tools conftest.py

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules
# Else every worker and every command compiles all modules anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo test test-unit test-e2e lint fmt charts pins tools programs twins mutants coverage rehearsal upgrade-proof endurance docs reference recording dist bench kind-up kind-down evidence lock clean clean-all

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  \033[1m%-14s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@printf '\n  STACK=local|docker|kind|cluster   where test-e2e and demo run (now: %s)\n' '$(STACK)'
	@printf '  ARGS=…                            passed on to pytest or stackproof\n'
	@printf '  COV=1                             count which lines of src/stackproof the tests run\n'
	@printf '  FRESH=1                           run tests even where nothing of theirs has changed\n'

setup: $(READY) ## Make the virtual environment in .venv from requirements.lock

$(LOCKED): requirements.lock
	@$(PYTHON) -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null || { \
	  echo "make: $(PYTHON) is not Python 3.11 to 3.14 with venv. Install it, or name another: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "Setting up $(VENV) (once, about a minute) …"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
	@touch $@

$(READY): $(LOCKED) pyproject.toml
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	@$(BIN)/python -m pip check --disable-pip-version-check >/dev/null || { $(BIN)/python -m pip check; \
	  echo "make: pyproject.toml asks for more than requirements.lock holds. Run: make lock" >&2; exit 1; }
	@touch $@

demo: $(READY) ## Start the stack from the charts, prove that tenants are isolated, write the report
	@$(BIN)/stackproof demo --stack $(STACK) $(ARGS)

test: programs ## Run all tests that need neither Docker nor a cluster
	@$(PYTEST) tests/e2e tests/unit -n $(WORKERS) --dist loadgroup --no-loadscope-reorder $(UNCHANGED) $(COVERAGE) $(ARGS)

test-unit: programs ## Run the unit tests: no network, seconds to a minute
	@$(PYTEST) tests/unit -n logical --dist loadgroup $(UNCHANGED) $(COVERAGE) $(ARGS)

test-e2e: programs ## Run the end-to-end tests on STACK
	@$(PYTEST) tests/e2e --stackproof-stack $(STACK) $(ARGS)

lint: $(READY) ## Check style, types and dependencies: ruff, mypy --strict, deptry, yamllint, actionlint
	@$(BIN)/ruff check $(CODE)
	@$(BIN)/ruff format --check $(CODE)
	@$(BIN)/mypy
	@$(BIN)/deptry --no-ansi src
	@$(BIN)/yamllint --strict .
	@$(call PROGRAM,actionlint) -shellcheck= -pyflakes=

fmt: $(READY) ## Format the code and fix what can be fixed
	@$(BIN)/ruff check --fix $(CODE)
	@$(BIN)/ruff format $(CODE)

charts: $(READY) ## Write each chart's schema and table of values, and its version: without a new one, a merge deploys nothing
	@$(BIN)/python -m stackproof.values.docs charts/*/
	@$(BIN)/python -m stackproof.helm.chartversion charts/*/

pins: $(READY) ## Write the digest of each image beside its tag, in versions.yaml and the charts (asks registries)
	@$(BIN)/python tools/digests.py

docs: $(READY) ## Build the documentation as a site in build/docs, strictly
	@$(BIN)/python tools/docsite.py build/docs

reference: $(READY) ## Write the pages that are made from the code: commands and twins
	@$(BIN)/python tools/reference.py
	@$(BIN)/stackproof twins --docs

dist: $(READY) ## Build the wheel and package the charts in dist/
	@rm -rf dist
	@$(BIN)/python -m build --wheel --no-isolation --outdir dist . >/dev/null
	@$(HELM) package charts/*/ --destination dist >/dev/null
	@ls dist

recording: programs ## Record a run of `stackproof demo` as the picture of the documentation
	@$(BIN)/python tools/recording.py docs/pictures/demo.svg

tools: $(READY) ## Get the programs now (out of images, else built), and show where they are
	@$(BIN)/stackproof tools --build $(ARGS)

# Before the tests, each of which has five minutes at most.
programs: $(READY)
	@$(BIN)/stackproof tools --build --local >/dev/null

twins: $(READY) ## Put every known fault back, one at a time: each must be caught
	@$(BIN)/stackproof twins $(ARGS)

mutants: $(READY) ## Change the charts at random places: what does the suite miss?
	@$(BIN)/stackproof mutants $(ARGS)

coverage: $(READY) ## Show which branches of the chart templates the scenarios render
	@$(BIN)/stackproof coverage $(ARGS)

rehearsal: programs ## Take users' data through the merge from chart 0.1.0 and back (needs Docker; STACK=kind: in a cluster)
	@$(PYTEST) tests/rehearsal --stackproof-stack $(STACK) $(ARGS)

upgrade-proof: programs ## Prove what a change does while it rolls out, from REV (default: where this branch left main)
	@$(BIN)/stackproof upgrade $(if $(filter-out file,$(origin REV)),--from $(REV)) $(ARGS)

endurance: programs ## Count what arrives after outages of a minute, at full rate (a quarter of an hour)
	@$(PYTEST) tests/e2e/local -m endurance $(ARGS)

bench: $(READY) ## Measure rendering, the proof, scale and load; write build/bench.json and bench.html
	@$(BIN)/stackproof bench $(ARGS)

kind-up: $(READY) ## Make a kind cluster with the deployment in it (needs Docker), and leave it running
	@$(BIN)/stackproof kind up $(ARGS)

kind-down: $(READY) ## Delete that cluster
	@$(BIN)/stackproof kind down $(ARGS)

evidence: $(READY) ## Collect objects, events and logs of that cluster, or ARGS=--context=NAME, without secrets
	@$(BIN)/stackproof evidence $(ARGS)

# Not $(READY): that checks the very packages which are about to be locked.
lock: $(LOCKED) ## Bring requirements.lock up to pyproject.toml (ARGS=--upgrade: to the newest releases)
	@$(call compile,requirements.lock,--all-extras $(ARGS))
	@$(call compile,requirements-runtime.lock,--constraint requirements.lock)

# Into a file beside it: a lock that is as it was is not newer than the environment made from it.
define compile
touch $(1); tail -n +3 $(1) > $(1).new; \
$(BIN)/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras $(2) \
  --no-emit-index-url --no-emit-trusted-host --no-emit-find-links --no-annotate --no-header \
  --output-file $(1).new pyproject.toml; \
sed -i '1i # Made by `make lock` from pyproject.toml. Do not edit by hand.\n' $(1).new; \
cmp -s $(1).new $(1) || cp $(1).new $(1); rm $(1).new
endef

clean: ## Remove what the targets made (reports, caches of the test tools)
	@rm -rf build .pytest_cache .mypy_cache .ruff_cache .hypothesis

clean-all: clean ## Remove the virtual environment as well (the cache of built programs stays)
	@rm -rf $(VENV)

include .github/ci.mk
