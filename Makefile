# pyrunc: what there is to do. `make help` lists the targets from their own remarks.

PREFIX  ?= /usr/local
TOP     := $(DESTDIR)$(PREFIX)
LIB     := $(TOP)/lib/pyrunc
COMMAND := $(TOP)/bin/pyrunc
BUNDLES := bundles/busybox/rootfs/bin/busybox
VENV    := .venv
SECONDS := 60
PY      := $(VENV)/bin/python
EXT     := pyrunc/linux/_linux.abi3.so
SHELL   := /bin/bash

# A path that the rules below would take apart is refused before anything is done.
define newline


endef
quoted = '$(subst ','\'',$(subst $(newline), ,$1))'
REFUSED := $(shell install/prefix $(call quoted,$(PREFIX)) $(call quoted,$(DESTDIR)))
ifneq ($(REFUSED),)
$(error $(REFUSED))
endif

# The command that a user without the rights is told to type.
export AS_ROOT := sudo make $(or $(MAKECMDGOALS),run)$(if $(filter-out file,$(origin PREFIX)), PREFIX=$(PREFIX))$(if \
    $(DESTDIR), DESTDIR=$(DESTDIR))
ifneq ($(filter run,$(MAKECMDGOALS)),)
ifneq ($(DESTDIR),)
$(error make run starts the command where it will be, and DESTDIR is another place: use make install)
endif
ifneq ($(shell id -u),0)
$(error make run installs pyrunc and runs a container, which takes root: $(AS_ROOT))
endif
endif

# The files an installed pyrunc is made from: when one of them changes, `make install` and `make run` install again.
SOURCES := pyproject.toml setup.py README.md LICENSE $(shell find pyrunc schema install -type f \
             -not -name '*.pyc' -not -name '*.so' 2>/dev/null)

# ... and also when the distribution has updated Python since.
WHICH_PYTHON := stat -L -c '%n %s %Y %Z' "$$(install/python)" 2>/dev/null
ifneq ($(shell $(WHICH_PYTHON)),$(shell cat $(LIB)/installed 2>/dev/null))
.PHONY: $(LIB)/installed
endif

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run install uninstall test lint format bench fuzz faults conformance coverage man pictures bundles deb dist clean

help: ## list what there is to do
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

run: install ## install pyrunc and whatever it needs, then run the first container (as root: sudo make run)
	@echo '$$ pyrunc run -b bundles/hello hello'
	@$(COMMAND) run -b bundles/hello hello

install: $(LIB)/installed ## install pyrunc and whatever it needs, without running it (as root)
	@echo 'installed: $(COMMAND)'

$(LIB)/installed: $(SOURCES)
	@install/rights $(TOP) install
	@install/needs
	@install/into $(PREFIX) $(DESTDIR)
	@$(WHICH_PYTHON) > $@

uninstall: ## remove what install put on this machine (Debian packages stay)
	@install/remove $(TOP)

test: $(VENV)/ready $(EXT) $(BUNDLES) ## run the whole test suite; ARGS='-k name' narrows it (as root it starts containers)
	@install/packages tests/packages.txt || echo 'what looks with them is skipped, and says so'
	$(PY) -m pytest $(ARGS)

lint: $(VENV)/ready ## run the linters, the formatters' checks and the type checker, on Python, shell and C
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy --strict
	$(VENV)/bin/lint-imports
	$(PY) -m tests.support.other_languages

format: $(VENV)/ready ## let ruff and clang-format lay out the code
	$(VENV)/bin/ruff format
	$(VENV)/bin/clang-format -i $$(find bench install pyrunc tests -name '*.[ch]')

coverage: $(VENV)/ready $(EXT) ## every branch of the pure parts (plan, spec) must be taken by the tests about them
	$(PY) -m coverage run -m pytest -q tests/unit/plan tests/unit/spec tests/property/test_accept.py
	$(PY) -m coverage report

bench: install ## compare with runc and crun, side by side in one run (as root)
	$(PY) -m bench $(ARGS)
	@[ -n "$(ARGS)" ] || $(PY) -m bench.volumes

fuzz: $(VENV)/ready $(EXT) ## try changed inputs for a time (SECONDS=60), as root on real containers too; findings are kept
	$(PY) -m tests.fuzz --seconds $(SECONDS) $(ARGS)

faults: $(VENV)/ready $(EXT) ## kill and refuse at every step of every verb, as root; make test tries some (ARGS='-k exec' narrows)
	PYRUNC_FAULTS=all $(PY) -m pytest tests/faults $(ARGS)

conformance: install ## let engines and public test suites judge pyrunc (as root)
	conformance/run $(ARGS)

man: $(VENV)/ready ## write the manual pages to build/man (make install puts them where man finds them)
	$(PY) -m pyrunc.cli.man build/man/man8

pictures: $(VENV)/ready $(EXT) ## draw the pictures of README.md anew, from real runs (as root)
	$(PY) docs/pictures/draw.py

deb: $(VENV)/ready ## write the Debian packages to dist/ (needs dpkg-dev, debhelper, dh-python)
	@install/dist $(PY) dist deb

dist: $(VENV)/ready ## write source archive, wheel and Debian packages to dist/, with their SHA256 sums
	@install/dist $(PY) dist

bundles: $(BUNDLES) ## fill the example bundles that need a root file system

bundles/busybox/rootfs/bin/busybox:
	@bundles/busybox/fill

# The tools for tests live in the checkout, apart from what is installed; a change in pyproject.toml brings them up to date.
$(VENV)/ready: pyproject.toml
	@install/needs
	@[ -x $(PY) ] || $$(install/python) -m venv $(VENV)
	@$(PY) -c 'import tomllib; p = tomllib.load(open("pyproject.toml", "rb")); x = p["project"]; \
	    print(*p["build-system"]["requires"], *x["dependencies"], *sum(x["optional-dependencies"].values(), []), sep="\n")' \
	    > $(VENV)/requirements
	@echo 'installing the tools for tests into $(VENV)'
	@$(PY) -m pip install -q --disable-pip-version-check -r $(VENV)/requirements
	@touch $@

$(EXT): $(wildcard pyrunc/linux/*.[ch] pyrunc/init/*) setup.py | $(VENV)/ready
	@$(PY) setup.py -q build_ext --inplace
	@touch $@

clean: ## remove what was built in the checkout
	rm -rf $(VENV) build dist *.egg-info $(EXT) .coverage* .pytest_cache .mypy_cache .ruff_cache .hypothesis \
	    .import_linter_cache bundles/busybox/rootfs
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
