# Everything a contributor types. Each target sets up what it needs; nothing is left on the machine but caches.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
PYTHON ?= python3
# One for each Python that is named: `make check PYTHON=python3.13` has `.venv-python3.13`.
VENV := .venv$(addprefix -,$(filter-out python3,$(notdir $(PYTHON))))
BIN := $(VENV)/bin
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/backstop
export PYTHONPATH := operator:.
# Several runs of pytest import the same tests: what the first one made of them is kept for the others.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help
help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1|/' | column -t -s'|'

# The stamp follows the lock file: a changed lock reinstalls, an unchanged one costs nothing.
$(VENV)/.stamp: requirements/dev.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	touch $@

.PHONY: venv
venv: $(VENV)/.stamp  ## the Python environment, from the lock file

.PHONY: lock
lock: ## write requirements/*.txt anew from pyproject.toml
	@test -x $(CACHE)/uv/bin/uv || { $(PYTHON) -m venv $(CACHE)/uv && $(CACHE)/uv/bin/pip install --quiet uv==0.13.8; }
	mkdir -p requirements
	$(CACHE)/uv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --custom-compile-command 'make lock' --extra traces pyproject.toml -o requirements/runtime.txt
	$(CACHE)/uv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --custom-compile-command 'make lock' --group build -o requirements/build.txt
	$(CACHE)/uv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --custom-compile-command 'make lock' --group fuzz -o requirements/fuzz.txt
	$(CACHE)/uv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --custom-compile-command 'make lock' --group dev --extra traces pyproject.toml -c requirements/runtime.txt -o requirements/dev.txt

.PHONY: check
check: venv  ## the quick loop: format, lint, types, import contracts, generated files, unit tests
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy
	$(BIN)/lint-imports | tail -n 8
	$(BIN)/python -m backstop.crdgen --check
	$(BIN)/python -m pytest -q -n 6 --dist worksteal -m "not apiserver and not prometheus and not cluster and not mutants and not long" tests

.PHONY: format
format: venv  ## format and fix what can be fixed
	$(BIN)/ruff format --quiet .
	$(BIN)/ruff check --fix --quiet .

.PHONY: parts
parts: venv  ## build the cluster's parts into the cache (minutes the first time, nothing after)
	$(BIN)/python -m e2e.cluster build

.PHONY: test
test: check parts  ## everything: the quick loop, a real API server, a real Prometheus, a whole cluster
	$(BIN)/python -m e2e.manifests --check
	$(MAKE) -j 2 served simulated
	$(MAKE) -j 2 whole soaked

# Beside each other: what is served waits half of its time, what runs on a whole cluster most of it.
# The soak asks for half as much as alone, and gives way but a little: what is starved turns callers away, and nothing can be compared.
.PHONY: served simulated whole soaked
served:
	$(BIN)/python -m pytest -n 5 --dist worksteal -m "apiserver or prometheus or long" tests
simulated:
	nice -n 19 $(BIN)/python -m tests.simulation --steps 20000 --first-seed 1

whole:
	$(BIN)/python -m e2e.tests
soaked:
	nice -n 5 $(BIN)/python -m tests.soak --minutes 3 --rate 20

.PHONY: soak
soak: venv  ## a gateway under mixed traffic and trouble for an hour: answers, every counter, memory (MINUTES=60)
	$(BIN)/python -m tests.soak --minutes $(or $(MINUTES),60)

# Beside the others' lock: there are wheels for Linux on x86_64 alone.
$(VENV)/.fuzz: requirements/fuzz.txt $(VENV)/.stamp
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/fuzz.txt
	touch $@

.PHONY: fuzz
fuzz: $(VENV)/.fuzz  ## made-up bytes, led by what code they reach, for all that reads what others write (MINUTES=10; Linux on x86_64)
	$(BIN)/python -m tests.fuzz --minutes $(or $(MINUTES),10)

.PHONY: mutants
mutants: venv  ## the engine with one mistake in it, another one each time: its tests must see each (minutes)
	$(BIN)/python -m pytest -q -n 2 -m mutants tests/mutants

.PHONY: nightly
nightly: mutants fuzz  ## the mutants, made-up bytes, properties on other examples each time, deaths in each write, a million steps of the engine's state machines
	$(BIN)/python -m pytest -q -n 2 --every-write tests/controller/test_crash.py
	$(BIN)/python -m pytest -q -n 2 -m "not apiserver and not prometheus and not cluster and not mutants" --hypothesis-profile=new tests
	$(BIN)/python -m tests.simulation --steps $(or $(STEPS),1000000)

.PHONY: bench-engine
bench-engine: venv  ## what the operator costs with up to 10,000 policies, and how fast it shifts traffic (OPTIONS="--idle 200 --live 1")
	$(BIN)/python -m bench.engine $(OPTIONS)

.PHONY: bench-analysis
bench-analysis: venv  ## false rollbacks and time to detection beside other tools' rules, on the same streams (OPTIONS="--runs 200 --only healthy")
	$(BIN)/python -m bench.analysis --plot docs/concepts/analysis.svg $(OPTIONS)

.PHONY: bench-gateway
bench-gateway: venv  ## what the gateway costs beside LiteLLM's proxy and Portkey's gateway (OPTIONS="--only backstop --seconds 2")
	$(BIN)/python -m bench.gateway --page docs/benchmarks/gateway.md $(OPTIONS)

.PHONY: profile-gateway
profile-gateway: venv  ## where the gateway's processor time goes: flame graphs in out/profile (OPTIONS="--only stream --checkout ../older")
	$(BIN)/python -m bench.gateway.profile $(OPTIONS)

.PHONY: bench-quality
bench-quality: venv  ## what judging an answer costs a gateway, and the longest step of it
	$(BIN)/python -m bench.quality

.PHONY: demo
demo: venv  ## a bad canary is rolled back and a good one promoted, on a cluster of its own (KEEP=1 leaves it up)
	$(BIN)/python -m e2e.demo $(if $(KEEP),--keep)

.PHONY: demo-down
demo-down: venv  ## take down the cluster that `make demo KEEP=1` left up
	$(BIN)/python -m e2e.cluster down --name backstop-demo
