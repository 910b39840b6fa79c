# Everything below sets itself up: the first run installs Debian packages (as root), builds the Python
# environment in ~/.cache/mailfleet-starttls and the container images. Later runs find them there.
.PHONY: help bootstrap demo demo-down test lint unit zoo molecule bench clean
.DEFAULT_GOAL = help

export PATH := $(CURDIR)/.venv/bin:$(PATH)
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
export ANSIBLE_HOME := $(CURDIR)/.cache/ansible
export ANSIBLE_FORKS ?= 6

LAB = .config/molecule

help:
	@echo 'make demo        a fleet of mail servers in containers, without TLS; then switch TLS on and prove it'
	@echo 'make demo-down   remove the fleet again'
	@echo 'make test        lint, unit, zoo and molecule: what has to pass before a change is handed in'
	@echo 'make lint        ansible-lint, ruff, mypy'
	@echo 'make unit        the tests that need no mail server'
	@echo 'make zoo         the handshake test against misbehaving servers, and the report page in a browser'
	@echo 'make bench       what the handshake test costs, beside other programs (BENCH=--quick for a look)'
	@echo 'make molecule    the scenarios on a fleet of their own (SCENARIO=name for one of them)'
	@echo 'make clean       remove both fleets and what the tools left in the tree'

bootstrap:
	@$(LAB)/bootstrap

demo: bootstrap
	@$(LAB)/demo

demo-down: bootstrap
	@echo 'demo-down: removing the demo fleet'
	@$(LAB)/fleet down
	@rm -rf .lab/reports

test:
	@$(LAB)/bootstrap zoo
	@$(LAB)/test lint unit zoo molecule

lint: bootstrap
	@$(LAB)/test lint

unit: bootstrap
	@$(LAB)/test unit

zoo:
	@$(LAB)/bootstrap zoo
	@$(LAB)/test zoo

molecule: bootstrap
	@$(LAB)/test molecule $(SCENARIO)

bench: bootstrap
	@tests/bench/run.py $(BENCH)

clean: demo-down
	@echo 'clean: removing the test fleet and the caches of the tools'
	@MAILFLEET_LAB=test MAILFLEET_LAB_DIR=.lab/test $(LAB)/fleet down
	@rm -rf .cache .ansible .mypy_cache .ruff_cache .pytest_cache .hypothesis .venv
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
	@rmdir .lab 2>/dev/null || true
