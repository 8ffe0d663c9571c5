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
PYTEST := PYTHONPATH=.cache/unit pytest -q -p no:cacheprovider -p no:testinfra

help: ## Say what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

# Everything in molecule/ is a scenario. CI runs the first of these lists.
SCENARIOS := $(notdir $(patsubst %/molecule.yml,%,$(wildcard molecule/*/molecule.yml)))
CI_SCENARIOS := default
LEFT_OUT := $(filter-out $(CI_SCENARIOS),$(SCENARIOS))

demo: machine venv collection ## Boot VMs, deploy, count packets through unmodified DPDK, leave nothing running
	@tools/demo

test: machine venv lint unit sanity kmod-build kmod-selftest molecule ## Run everything that .ci/run runs
	@echo "All tests passed. Left out, in make test-all only:" \
		"the scenarios $(LEFT_OUT), make report-test and make test-kmod."

test-all: test report-test test-kmod $(LEFT_OUT:%=molecule-%) ## Run that, every other scenario, and the long tests
	@echo "All tests passed, with every scenario: $(SCENARIOS)."

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

lint: venv collection ## yamllint, ansible-lint, and the documentation of every module and role
	$(call stage,yamllint,yamllint --strict .)
	$(call stage,ansible-lint,ansible-lint --offline --strict --profile production)
	$(call stage,documentation of modules and roles,\
		antsibull-docs lint-collection-docs --plugin-docs --validate-collection-refs=self \
			--disallow-unknown-collection-refs .)

reference: venv collection ## Generate the reference of every module and role into docs/reference
	@rm -rf docs/reference; mkdir -p docs/reference
	@antsibull-docs collection-plugins --use-current --fail-on-error --output-format simplified-rst \
		--dest-dir docs/reference baremetal.noiommu

unit: venv ## Unit tests on sysfs trees in temporary directories
	@$(as_installed)
	$(call stage,unit tests,$(PYTEST) --numprocesses=auto tests/unit)

report-test: browser ## The fleet report in headless Chromium; its metrics and alerts before promtool
	@$(as_installed)
	$(call stage,fleet report,PATH=$(CURDIR)/.cache/promtool/usr/bin:$$PATH $(PYTEST) tests/report)

browser: venv
	$(call stage,browser and promtool,tools/report-deps .cache/promtool)

sanity: venv ## Every ansible-test sanity test
	$(call stage,ansible-test sanity,tools/sanity)

kmod-build: machine ## Compile the module without a warning for every supported kernel
	$(call stage,kernel module against all supported kernels,tools/kmod-build)

kmod-selftest: kmod-build ## Boot every supported kernel and try everything that the module promises
	$(call stage,kernel module in small VMs of all supported kernels,tests/kmod/run)

test-kmod: kmod-selftest ## The long tests as well: flavours, arm64, a debugging kernel, a fuzzer, 10000 cycles
	$(call stage,kernel module against more flavours and arm64,tools/kmod-build --flavours)
	$(call stage,selftests on the debugging kernel (its build takes about ten minutes),tests/kmod/run debug)
	$(call stage,a million random calls on the debugging kernel,tests/kmod/long fuzz)
	$(call stage,ten thousand cycles,tests/kmod/long cycles)
	$(call stage,cycles on the debugging kernel,tests/kmod/long cycles --kernel debug --cycles 2000)

molecule: $(CI_SCENARIOS:%=molecule-%) ## The scenarios of CI in real VMs, verified by testinfra; molecule-NAME for one

molecule-fleet: browser

$(SCENARIOS:%=molecule-%): molecule-%: machine venv collection
	$(call stage,images of scenario $*,tools/vm image --of molecule/$*/machines.yml)
	$(call stage,molecule scenario $*,molecule test --scenario-name $* --destroy always --no-command-borders)

clean: ## Remove what was built in this directory (the image cache stays)
	rm -rf .cache $(VENV) docs/reference
	$(MAKE) -C kmod clean

.PHONY: help demo test test-all $(SCENARIOS:%=molecule-%) machine venv collection lint reference unit report-test \
	browser sanity kmod-build kmod-selftest test-kmod molecule clean
