# Everything a newcomer types; `make` alone lists it. Each target does the set-up it needs (scripts/setup.sh, instant when it is done).

PYTHON_FILES = s3mount tests scripts
RUN = .venv/bin/python

# make install: where to. Both /sbin and PREFIX/sbin get the mount helpers, as mount(8) looks in /sbin only; a PREFIX of one's own keeps to itself.
PREFIX ?= /usr/local
DESTDIR ?=
HELPERDIR ?= $(if $(filter /usr /usr/local,$(PREFIX)),/sbin,$(PREFIX)/sbin)

# What CI and developers agree on; more through the environment, as in PYTEST_ARGS='-k rename -x', or '-n 0 -s' to see one test at work.
PYTEST = $(RUN) -m pytest
# One worker more than processors: much of a test is waiting, for the disk or for other processes. But each mount's test starts some, and more
# than four at once would wait for one another.
MORE_THAN_CORES = -n $$(($$(nproc) + 1))
WORKERS = $(MORE_THAN_CORES) --maxprocesses=4 --dist worksteal

# Every worker, mount and server of a run would compile anew what it imports where the environment forbids Python to keep what it compiled.
export PYTHONDONTWRITEBYTECODE =

# Folders without a fast test: make check does not even import what they need.
ALL_SLOW = bench checker install server server_api soak

.DEFAULT_GOAL := help
.PHONY: help demo test check check-types check-tests fmt bench soak install uninstall clean setup setup-test

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile

demo: setup ## make a bucket, mount it, work in it, and say how fast it was
	@$(RUN) scripts/demo.py

test: setup-test ## the whole test suite, real mounts included
	$(PYTEST) $(WORKERS) -m "not soak" $(PYTEST_ARGS)

check: setup-test ## format, lint, types, import arrows, fast tests: under a minute
	$(RUN) -m ruff format --check --quiet $(PYTHON_FILES)
	$(RUN) -m ruff check --quiet $(PYTHON_FILES)
	@$(MAKE) --no-print-directory --jobs=2 --output-sync check-types check-tests

# Side by side: types are one process's work, and fast tests wait for the disk now and then.
check-types: setup-test
	$(RUN) -m mypy $(PYTHON_FILES)

# Without faulthandler's watch, which is a thread begun and ended for each test; pytest-timeout ends what hangs.
check-tests: setup-test
	$(PYTEST) -q $(MORE_THAN_CORES) -m "not slow and not fuse and not soak" --hypothesis-profile=fast -o faulthandler_timeout=0 \
	  $(ALL_SLOW:%=--ignore=tests/%) $(PYTEST_ARGS)

fmt: setup-test ## format the code and mend what ruff can mend
	$(RUN) -m ruff format $(PYTHON_FILES)
	$(RUN) -m ruff check --fix $(PYTHON_FILES)

bench: setup-test ## print a mount's speed next to the bare directory's (BENCH_SCALE=0.01 for a taste)
	$(RUN) -m tests.bench

soak: setup-test ## the random tests with new seeds, long lives, kills, bad weather: one to two hours
	$(PYTEST) -m "soak or hypothesis and not fuse and not slow" --durations=20 --hypothesis-profile=soak --timeout=3600 -o faulthandler_timeout=3500 $(PYTEST_ARGS)

install: ## a self-contained installation with the mount(8) helpers (PREFIX, DESTDIR, HELPERDIR)
	@PREFIX='$(PREFIX)' DESTDIR='$(DESTDIR)' HELPERDIR='$(HELPERDIR)' scripts/install.sh install

uninstall: ## take it away again, with the same PREFIX, DESTDIR, HELPERDIR
	@PREFIX='$(PREFIX)' DESTDIR='$(DESTDIR)' HELPERDIR='$(HELPERDIR)' scripts/install.sh uninstall

clean: ## remove what make made here: .venv, caches, build leftovers
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .bench
	find s3mount tests scripts -name __pycache__ -type d -prune -exec rm -rf {} +

setup:
	@scripts/setup.sh run

setup-test:
	@scripts/setup.sh test
