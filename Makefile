# The targets for contributors. `make` alone lists them.

VENV := .venv
BIN := $(VENV)/bin
# The demo needs less than the tests. Each stamp marks its part as installed.
DEMO_STAMP := $(VENV)/.installed-demo
STAMP := $(VENV)/.installed
DEMO_EXTRAS := server,heic
EXTRAS := $(DEMO_EXTRAS),jxl,pdf,raw,remote,clip,train,ray
FROZEN := build/lock
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

# The first Python that is new enough; set another with PYTHON=...
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$python -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$python && break; done)

PORT ?= 8000
PHOTOS ?=
SYSTEM ?=
WORKERS ?= 3
# Tests wait for browsers and servers, so that two cores have room for three workers. Each worker gets one long stretch
# of the tests, so that what a module or folder prepares is prepared once. One that finishes takes over a part of
# another's remaining tests.
PARALLEL = -n $(WORKERS) --maxprocesses 4 --dist worksteal
QUICK ?=
# A quick run has a separate folder, so that it does not overwrite slow results.
RESULTS := build/bench$(if $(QUICK),-quick)

# Small tensors gain nothing from threads, and the threads of parallel tests would compete for the cores.
test coverage soak: export OMP_NUM_THREADS := 1
# Otherwise, if the environment forbids caches of bytecode, every program that a test starts compiles what it imports.
test coverage soak: export PYTHONDONTWRITEBYTECODE :=

.PHONY: help install test coverage demo containers bench figures gpu mutants peers papers pictures soak dist lock clean
.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

install: $(STAMP) ## make .venv, with this project and everything that the targets need

$(DEMO_STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed, with its venv module; PYTHON=... names one." >&2; exit 2; }
	@echo "Installing what the program needs into $(VENV): some 100 MB the first time, 300 MB on the disk."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) -e '.[$(DEMO_EXTRAS)]'
	@touch $@

$(STAMP): $(DEMO_STAMP)
	@echo "Installing what tests, benchmarks and training need besides: about 3 GB the first time, most of it PyTorch."
	@# Older versions do not support groups of dependencies.
	@$(PIP) 'pip>=25.1'
	@$(PIP) -e '.[$(EXTRAS)]' --group dev
	@touch $@

test: $(STAMP) ## style, types, imports and tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo
	@# Tests wait now and then, for browsers and servers, and leave room to check types, which takes one core a minute.
	@mkdir -p build
	$(BIN)/mypy >build/types 2>&1 & mypy=$$!; \
	$(BIN)/python -m pytest $(PARALLEL); tests=$$?; \
	wait $$mypy; types=$$?; cat build/types; exit $$((tests + types))

coverage: $(STAMP) ## run the tests, and print their coverage of the code
	$(BIN)/python -m pytest $(PARALLEL) --cov=model --cov=indexer --cov=service --cov-branch

demo: $(DEMO_STAMP) ## index a sample gallery (or PHOTOS=dir), serve it at PORT=8000, search it once; SYSTEM=two-stage: the report's
	@$(BIN)/sketch-search demo build/demo --port $(PORT) $(if $(PHOTOS),--photos "$(PHOTOS)") $(if $(SYSTEM),--system $(SYSTEM))

containers: ## build the image for CPUs without a daemon, index, serve, search and stop in it; needs root, podman and debootstrap
	@docker/check.sh

bench: $(STAMP) ## measure the speeds in docs/speed.md again and write them there; QUICK=1: in minutes, only printed
	$(BIN)/python -m tests.benchmarks.costs --output $(RESULTS) $(if $(QUICK),--quick)
	$(BIN)/python -m tests.benchmarks.scoring --output $(RESULTS) $(if $(QUICK),--quick)
	$(BIN)/python -m tests.benchmarks.two_stage --output $(RESULTS) $(if $(QUICK),--quick)
	$(BIN)/python -m tests.benchmarks.large --output $(RESULTS) $(if $(QUICK),--quick)
	$(BIN)/python -m tests.benchmarks.load --output $(RESULTS) $(if $(QUICK),--quick)
	$(BIN)/python -m tests.benchmarks.sharded --output $(RESULTS) $(if $(QUICK),--quick)
	$(BIN)/python -m tests.benchmarks.pen_up --output $(RESULTS) $(if $(QUICK),--quick)
	@$(BIN)/python -m tests.benchmarks.results $(RESULTS) $(if $(QUICK),--quick,--page docs/speed.md)

figures: $(STAMP) ## measure the figures of README, docs/quality.md and what networks cost, in 20 minutes, and write them
	$(BIN)/python -m training figures --page README.md --page docs/quality.md --page docs/research/networks.md

gpu: $(STAMP) ## measure a GPU in some five minutes, and only print: pairs, sketches, batches of photos, 20,000 photos
	$(BIN)/python -m tests.benchmarks.scoring --output build/gpu --device cuda
	$(BIN)/python -m tests.benchmarks.large --output build/gpu --device cuda --sizes 20000

peers: ## measure other search engines beside this one, for the table in docs/speed.md, in an environment of their own (6 GB)
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; PYTHON=... names one." >&2; exit 2; }
	$(PYTHON) -m venv build/peers
	build/peers/bin/python -m pip install --quiet --disable-pip-version-check -e '.[server,train,peers]'
	build/peers/bin/python -m tests.benchmarks.peers --output $(RESULTS)-peers $(if $(QUICK),--quick)
	@build/peers/bin/python -m tests.benchmarks.results $(RESULTS)-peers $(if $(QUICK),--quick,--page docs/speed.md)

papers: $(STAMP) ## train and measure the tables of all papers, for days, and write those of docs/research/networks.md
	@# The page has marks for the tables that show something.
	@failed=; page=docs/research/networks.md; for table in training/papers/recipes/tables/*.toml; do name=$$(basename $$table .toml); \
		$(BIN)/python -m training table $$name --sheets docs/research/runs \
			$$(grep -q "begin: table $$name " $$page && echo --page $$page) || failed=1; \
	done; test -z "$$failed"

mutants: $(STAMP) ## alter operators in the modules that score photos, and count how often tests fail
	$(BIN)/python -m tests.mutants

soak: $(STAMP) ## long tests: 200 kills, 10,000 requests, swaps under load, fuzzers; writes their table to docs/speed.md
	@rm -rf build/soak
	$(BIN)/python -m pytest -m "soak or fuzz" --hypothesis-profile=soak
	@$(BIN)/python -m tests.benchmarks.results build/soak --page docs/speed.md

pictures: $(STAMP) ## draw the pictures of README and docs again, in chromium
	@# Only its photos are used.
	@$(PIP) --no-deps --upgrade --target build/pictures scikit-image
	PYTHONPATH=build/pictures $(BIN)/python -m tests.screenshots docs
	$(BIN)/python -m tests.illustrated docs/research/figures

dist: $(STAMP) ## build sdist and wheel in dist/, and check them
	@rm -rf dist build/lib build/bdist.*
	$(BIN)/python -m build --outdir dist .
	$(BIN)/twine check --strict dist/*

lock: ## write constraints.txt from a fresh install
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; PYTHON=... names one." >&2; exit 2; }
	rm -rf $(FROZEN) && $(PYTHON) -m venv $(FROZEN)
	$(FROZEN)/bin/python -m pip install --quiet --disable-pip-version-check 'pip>=25.1'
	$(FROZEN)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[$(EXTRAS)]' --group dev
	$(FROZEN)/bin/python -m pip freeze --all --exclude-editable --exclude pip --disable-pip-version-check > $(FROZEN)/list
	@# A local version, such as torch's +cpu, exists on one index only. Without it the line fits every build of the release.
	@# Of faiss, only one is installed; both have the same releases.
	{ echo "# Made by make lock; what make install takes."; sed -n 's/^\([A-Za-z0-9._-]*==[^+]*\).*/\1/p; s/^faiss-cpu==/faiss-gpu==/p' $(FROZEN)/list; } > constraints.txt
	rm -rf $(FROZEN)

clean: ## delete what was built here, but not .venv
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
