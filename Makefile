# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:

VENV := .venv
COLLECTIONS := .cache/collections
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH):/usr/sbin:/sbin
export ANSIBLE_COLLECTIONS_PATH := $(CURDIR)/$(COLLECTIONS)
export MOLECULE_GLOB := molecule/*/molecule.yml
export MOLECULE_COMMAND_BORDERS := false
export PYTHONDONTWRITEBYTECODE := 1

# Each stage says when it starts and how long it took. Its commands are separated
# by semicolons: in a chain of && a failure would not end it.
define stage
	@echo "==> $(1)"; start=$$SECONDS; $(2); echo "<== $(1): $$((SECONDS - start)) s"
endef

# pytest finds the collection as if it were installed below .cache/unit.
UNIT_PARENT := .cache/unit/ansible_collections/baremetal
as_installed := mkdir -p $(UNIT_PARENT) && ln -sfn $(CURDIR) $(UNIT_PARENT)/noiommu
PYTEST := PYTHONPATH=.cache/unit pytest -q --import-mode=importlib -p no:cacheprovider -p no:testinfra

help: ## Say what can be made
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

# Everything in molecule/ is a scenario. The tests always run those of the second list, and of the others as many as fit
# into so many seconds, in turn, none beyond GATE_END (seconds since 1970): tools/gate/turns.py has the rule.
# SCENARIOS="one another" chooses them by hand.
ALL_SCENARIOS := $(notdir $(patsubst %/molecule.yml,%,$(wildcard molecule/*/molecule.yml)))
CI_SCENARIOS := default
TURN_BUDGET := 1500
# Of each of the 88 parsers.
FUZZ_EXAMPLES := 12000
TURNS = --budget $(TURN_BUDGET) --always "$(CI_SCENARIOS)" $(if $(GATE_END),--until $(GATE_END)) \
	$(if $(filter undefined,$(origin SCENARIOS)),,--only "$(SCENARIOS)")
# How a run that proves something whole is recorded: docs/proofs.md.
PROOF := tools/proofs run

demo: machine venv collection ## Boot VMs, deploy, count packets through unmodified DPDK, leave nothing running
	@tools/demo

always: machine venv lint unit lockout sanity kmod-build kmod-selftest molecule

test: machine turns always take-turns ## Run everything that .ci/run runs
	@echo "All tests passed. Left out: the scenarios named above, hostile, report-test, engines, matrix, test-kmod, fuzz and" \
		"bench-small, which make test-all runs, and the benches as a whole."

test-all: always hostile bench-small report-test engines matrix test-kmod fuzz $(ALL_SCENARIOS:%=molecule-%) ## Run that, every scenario, and the long tests
	@echo "All tests passed, with every scenario: $(ALL_SCENARIOS). Left out: the benches as a whole."

turns: machine ## Say which scenarios make test takes on besides those that it always runs
	@tools/proofs plan $(TURNS)

take-turns: machine venv collection
	@tools/proofs take $(TURNS)

machine: ## Install the Debian packages that the VMs and the builds need
	@test -x /usr/bin/python3 || \
		{ echo "make: /usr/bin/python3 is missing. As root: apt-get install python3" >&2; exit 1; }
	@/usr/bin/python3 tools/vm deps --install

venv: $(VENV)/installed ## Install ansible-core, molecule and the linters into .venv

$(VENV)/installed: requirements-dev.txt | machine
	$(call stage,Python tools into $(VENV) (about a minute),\
		python3 -m venv --clear $(VENV); $(VENV)/bin/pip install --quiet -r requirements-dev.txt; touch $@)

collection: venv ## Install this collection where the playbooks find it
	@rm -rf $(COLLECTIONS) .cache/build
	@ansible-galaxy collection build --output-path .cache/build . >/dev/null
	@ansible-galaxy collection install --offline -p $(COLLECTIONS) .cache/build/*.tar.gz >/dev/null

lint: venv collection docs ## ruff, mypy, yamllint, ansible-lint, galaxy-importer, the documentation, and old proofs
	@$(as_installed)
	$(call stage,ruff,ruff check --quiet .; ruff format --check --quiet .)
	$(call stage,mypy,cd .cache/unit; mypy --strict --config-file ../../pyproject.toml \
		--cache-dir ../mypy ansible_collections/baremetal/noiommu/plugins/module_utils)
	$(call stage,yamllint,yamllint --strict .)
	$(call stage,ansible-lint,ansible-lint --offline --strict --profile production)
	$(call stage,documentation of modules and roles,\
		antsibull-docs lint-collection-docs --plugin-docs --validate-collection-refs=self \
			--disallow-unknown-collection-refs .)
	$(call stage,changelog fragments,antsibull-changelog lint)
	$(call stage,galaxy-importer,tools/importer .cache/build/*.tar.gz)
	$(call stage,proofs of what was run whole,tools/proofs check)

docs: venv collection ## Build the guide and the reference of every variable, module and role into .cache/docs, as one site
	@$(as_installed)
	$(call stage,documentation site in .cache/docs/index.html,\
		PYTHONPATH=.cache/unit python3 docs/site/variables.py; rm -rf .cache/docs; python3 docs/site/stage.py .cache/site; mkdir -m 755 .cache/site/reference; \
		antsibull-docs --config-file docs/site/antsibull.cfg collection --use-current --squash-hierarchy \
			--fail-on-error --no-add-antsibull-docs-version --dest-dir .cache/site/reference baremetal.noiommu; \
		sphinx-build --quiet --fail-on-warning --keep-going -c docs/site -d .cache/doctrees .cache/site .cache/docs)

release: venv ## Do the next step of a release, and publish nothing: RELEASING.md
	@tools/release

unit: venv ## Unit tests on sysfs trees in temporary directories, and how much of plugins/ they run
	@$(as_installed)
	$(call stage,unit tests,$(PYTEST) --numprocesses=auto --timeout=900 --cov --cov-report=term tests/unit tests/fuzz)

fuzz: venv ## A million mutated inputs to the parsers of whatever hosts say (about an hour)
	@$(as_installed)
	$(call stage,fuzzing,NOIOMMU_FUZZ_EXAMPLES=$(FUZZ_EXAMPLES) $(PYTEST) --numprocesses=auto tests/fuzz)

mutants: venv ## Change module_utils in small ways: who notices? FILES="_package/file _package/another", or all in some hours
	@tools/mutants $(FILES)

report-test: browser ## The fleet report in headless Chromium; its metrics and alerts before promtool
	@$(as_installed)
	$(call stage,fleet report,PATH=$(CURDIR)/.cache/promtool/usr/bin:$$PATH \
		$(PROOF) report-test -- env $(PYTEST) tests/report)

browser: venv
	$(call stage,browser and promtool,tools/report-deps .cache/promtool)

engines: machine venv ## ansible-runner, ansible-pull, Mitogen, execution environments and job slices on simulated hosts
	$(call stage,engines on simulated hosts,tests/engines/run)

matrix: machine venv ## Build, install, document, check and deploy with each supported version of ansible-core
	$(call stage,all supported versions of ansible-core,tests/engines/matrix)

hostile: venv ## Hosts and build hosts that lie, before the oldest and the newest ansible-core (a quarter of an hour)
	@$(as_installed)
	$(call stage,hostile hosts before the oldest and the newest ansible-core,for version in oldest newest; do \
		playbook=$$(tools/ansible-core $$version); NOIOMMU_ANSIBLE_PLAYBOOK=$$playbook \
			$(PYTEST) --numprocesses=auto --dist=loadfile tests/hostile tests/unit/playbooks/test_hostile.py; done)

lockout: machine ## Have this machine depend on a device in every known way: each has to be refused
	$(call stage,lock-out attempts,tests/lockout/run)

sanity: venv ## Every ansible-test sanity test
	$(call stage,ansible-test sanity,tools/sanity)

kmod-build: machine ## Compile the module without a warning for every supported kernel
	$(call stage,kernel module against all supported kernels,tools/kmod-build)

kmod-selftest: kmod-build ## Boot every supported kernel and try everything that the module promises
	$(call stage,kernel module in small VMs of all supported kernels,$(PROOF) kmod-selftest -- tests/kmod/run)

KMOD_LONG := kmod-planted kmod-flavours kmod-arm64 kmod-debug kmod-fuzz kmod-cycles kmod-cycles-debug

test-kmod: kmod-selftest $(KMOD_LONG) ## Run that and the long tests

kmod-planted: machine ## Plant faults into the module: do the selftests notice each of them?
	$(call stage,planted faults,$(PROOF) kmod-planted -- tests/kmod/planted)

kmod-flavours: machine ## Compile the module for more flavours of the kernel and for arm64
	$(call stage,kernel module against more flavours and arm64,tools/kmod-build --flavours)

kmod-arm64: machine ## The selftests in emulated arm64 machines of all supported kernels
	$(call stage,selftests on arm64,$(PROOF) kmod-arm64 -- tests/kmod/run 6.1-arm64 6.12-arm64 7.3-arm64)

kmod-debug: machine ## Try what the module promises on two kernels made for finding bugs
	$(call stage,selftests on the debugging kernels (to build one takes about ten minutes),\
		$(PROOF) kmod-debug -- tests/kmod/run debug cdev)

kmod-fuzz: machine ## A million random calls on that kernel
	$(call stage,a million random calls on the debugging kernel,$(PROOF) kmod-fuzz -- tests/kmod/long fuzz)

kmod-cycles: machine ## Add, attach, detach and remove a device ten thousand times
	$(call stage,ten thousand cycles,$(PROOF) kmod-cycles -- tests/kmod/long cycles)

kmod-cycles-debug: machine ## The same two thousand times on the debugging kernel
	$(call stage,cycles on the debugging kernel,\
		$(PROOF) kmod-cycles-debug -- tests/kmod/long cycles --kernel debug --cycles 2000)

bench-small: bench-bind-small bench-rig-small bench-scale-small bench-translate-small ## See that each bench runs; no times are judged

bench-bind-small: machine venv collection
	$(call stage,bench/bind on few devices,bench/bind --small)

bench-rig-small: machine
	$(call stage,bench/rig on the smallest machine alone,bench/rig --small)

bench-scale-small: machine venv
	$(call stage,bench/scale on few hosts,bench/scale --small)

bench-translate-small: machine
	$(call stage,bench/translate on little memory,bench/translate --small)

bench-bind: machine venv collection ## Measure how long it takes to bind 64 devices
	$(call stage,bench/bind,$(PROOF) bench-bind -- bench/bind)

bench-rig: machine venv ## Measure what several versions of QEMU take where they emulate the processor
	$(call stage,bench/rig,$(PROOF) bench-rig -- bench/rig)

bench-scale: machine venv ## Measure what up to a thousand hosts cost the control node (some hours)
	$(call stage,bench/scale,$(PROOF) bench-scale -- bench/scale)

bench-translate: machine ## Measure how long it takes to learn the bus addresses of memory, and to map it
	$(call stage,bench/translate,$(PROOF) bench-translate -- bench/translate)

molecule: $(CI_SCENARIOS:%=molecule-%) ## The scenarios that make test always runs; molecule-NAME for one

molecule-arm64: arm64-machine

arm64-machine: machine
	@/usr/bin/python3 tools/vm deps --install --arm64

molecule-fleet: browser

$(ALL_SCENARIOS:%=molecule-%): molecule-%: machine venv collection
	$(call stage,images of scenario $*,tools/vm image --of molecule/$*/machines.yml)
	$(call stage,molecule scenario $*,\
		$(PROOF) molecule-$* -- molecule test --scenario-name $* --destroy always --no-command-borders)

clean: ## Remove what was built in this directory (the image cache stays)
	rm -rf .cache $(VENV)
	$(MAKE) -C kmod clean

.PHONY: $(ALL_SCENARIOS:%=molecule-%) $(shell sed -n 's/^\([a-z-]*\):.*/\1/p' $(MAKEFILE_LIST))
