# The single way in: 'make' lists what there is. Every target installs by itself what it needs (scripts/provision).
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

BIN := .venv/bin
WORKERS := 2

SIGN :=
OUT :=
LEVEL :=
FORMAT := pades
PACKAGING := enveloped
ALGORITHM := ES256
# What is given on the command line make would export to every recipe, expanded: $(shell …) in a file's name would run.
unexport SIGN OUT LEVEL FORMAT PACKAGING ALGORITHM

.PHONY: help
help: ## what there is
	@printf 'make TARGET [NAME=value]…\n\n'
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 16

.PHONY: provision
provision: # what the running service needs
	@scripts/provision run

.PHONY: demo
# The texts go through the environment as they were typed: no shell and no make looks into a file's name.
demo: export RUBRICA_DEMO_STARTED := $(shell date +%s.%N)
demo: export RUBRICA_DEMO_SIGN := $(value SIGN)
demo: export RUBRICA_DEMO_OUT := $(value OUT)
demo: export RUBRICA_DEMO_LEVEL := $(value LEVEL)
demo: export RUBRICA_DEMO_FORMAT := $(value FORMAT)
demo: export RUBRICA_DEMO_PACKAGING := $(value PACKAGING)
demo: export RUBRICA_DEMO_ALGORITHM := $(value ALGORITHM)
demo: provision ## a citizen signs: SIGN=in.pdf OUT=out.pdf LEVEL=B-LTA FORMAT=pades|xades PACKAGING=… ALGORITHM=ES256
	@$(BIN)/rubrica demo

.PHONY: up
up: provision ## keeps the whole service running on this machine
	@exec $(BIN)/rubrica up

.PHONY: test
test: ## all tests (TESTS=path and ARGS='-k name' narrow them)
	@scripts/provision test
	@mkdir -p var
	@$(BIN)/pytest -n $(WORKERS) --dist loadfile --junitxml=var/junit.xml $(ARGS) $(TESTS)

.PHONY: interop
interop: ## other people's judges on what we sign; their reports are kept in var/interop (ARGS='-k name' narrows)
	@scripts/provision test
	@$(BIN)/pytest --durations=3 $(ARGS) tests/interop

.PHONY: check
check: ## format, lint, types, layers, generated files, handbook; silent when fine
	@scripts/provision test docs
	@scripts/check

.PHONY: format
format: ## rewrites the sources in our format
	@scripts/provision test
	@$(BIN)/ruff check --quiet --fix-only .
	@$(BIN)/ruff format --quiet .

.PHONY: bench
bench: ## measures; a table, and var/bench.json
	@scripts/provision test
	@$(BIN)/python -m benchmarks

.PHONY: drill
drill: ## long campaigns (SEED=n, DRILL=name): var/drill/*.json
	@scripts/provision test
	@$(BIN)/python -m tests.drill $(if $(SEED),--seed $(SEED)) $(DRILL)

.PHONY: docs
docs: ## the handbook, in var/site
	@scripts/provision docs
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict --site-dir var/site
	@echo var/site/index.html

.PHONY: pictures
pictures: ## README's pictures anew, from the pages as they are
	@scripts/provision test
	@$(BIN)/python scripts/pictures.py

.PHONY: proto
proto: ## generates Python from the .proto files
	@scripts/provision test
	@$(BIN)/python scripts/proto.py

.PHONY: requirements
requirements: ## pins requirements/*.txt anew from pyproject.toml (ARGS=--upgrade for newer versions)
	@scripts/provision dev
	@$(BIN)/python scripts/requirements.py $(ARGS)

.PHONY: clean
clean: ## removes var/, .venv/ and caches
	@if [[ -e var/up.lock ]] && ! flock --nonblock var/up.lock true; then \
		echo "'make up' is running: stop it first" >&2; exit 1; fi
	@rm -rf var .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis site
	@rm -rf ./*.egg-info client/*.egg-info verifier/*.egg-info build client/build verifier/build tests/interop/dss/target
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
