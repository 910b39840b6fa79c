# Everything below sets itself up: the first run installs Debian packages (as root), builds the Python
# environment in ~/.cache/mailfleet-starttls and the container images. Later runs find them there.
.PHONY: help demo demo-down test test-matrix test-faults lint unit awx powershell zoo cores molecule fleet fleet-down try converge verify bench clean python lab
.DEFAULT_GOAL = help

export PATH := $(CURDIR)/.venv/bin:$(PATH)
export ANSIBLE_CONFIG := $(CURDIR)/.lab/ansible.cfg
export ANSIBLE_HOME := $(CURDIR)/.cache/ansible
# What Python compiles is kept, or every start of Ansible would compile all of it again.
export PYTHONPYCACHEPREFIX := $(CURDIR)/.cache/bytecode
unexport PYTHONDONTWRITEBYTECODE

export TESTS

LAB = tools/lab
# The fleet of the inner loop is neither the demo's nor that of the tests.
DEV = MAILFLEET_LAB=dev MAILFLEET_LAB_DIR=.lab/dev

help:
	@echo 'make demo        a fleet of mail servers in containers, without TLS; then switch TLS on and prove it'
	@echo 'make demo-down   remove the fleet again'
	@echo 'make test        what has to pass before a change is handed in; its end shows what took how long'
	@echo 'make test-matrix what is too long for that: delivery modes and enforced domains on all gateways, all of a peer, hosts that become Debian 13, the oldest and the newest ansible-core'
	@echo 'make test-faults what is too long for that as well: every fault and hostile value there is a table of, and the fuzzers (FUZZ=10 for 10 s each)'
	@echo
	@echo 'make lint        ansible-lint, ruff, mypy (a plain Python environment is enough: no root, no containers)'
	@echo 'make unit        the tests that need no mail server (the same)'
	@echo 'make awx         the objects for AWX, with the modules of awx.awx (the same)'
	@echo 'make powershell  the PowerShell for Exchange, run by a real one (the same, and a PowerShell; without it they are skipped)'
	@echo 'make cores       the unit tests on the oldest and newest ansible-core, the engine on Python 3.9'
	@echo 'make zoo         the handshake test against misbehaving servers, and the report page in a browser'
	@echo 'make molecule    the scenarios on a fleet of their own (SCENARIO=name for one of them)'
	@echo
	@echo 'make fleet       a fleet to try things on, without TLS; it stays until make fleet-down'
	@echo 'make try         a playbook on it: HOST=pf12 PLAY=verify_tls ARGS="--check --diff"'
	@echo 'make converge    the starting point of a scenario on it: SCENARIO=modes'
	@echo "make verify      that scenario's tests on it: SCENARIO=modes TESTS='-k required'"
	@echo
	@echo 'make bench       what the handshake test costs, beside other programs (BENCH=--quick for a look)'
	@echo '                 BENCH=rollout: what a roll-out costs, beside roles that prove nothing; BENCH=logs: the log readers'
	@echo 'make clean       remove the fleets and what the tools left in the tree'

lab:
	@$(LAB)/bootstrap packages

python:
	@$(LAB)/bootstrap python

demo:
	@$(LAB)/demo

demo-down: python
	@echo 'demo-down: removing the demo fleet'
	@$(LAB)/fleet down
	@rm -rf .lab/reports

test:
	@$(LAB)/test

lint unit awx powershell: python
	@$(LAB)/test $@

zoo: python
	@$(LAB)/bootstrap packages zoo
	@$(LAB)/test $@

cores: lab python
	@$(LAB)/cores

test-matrix: lab python
	@LAB_GATEWAYS=gw1,gw13,gx12,gx13 $(LAB)/test molecule modes enforced
	@LAB_PEERS=all $(LAB)/test molecule relay
	@LAB_UPGRADE=all LAB_FILTERS=all $(LAB)/test molecule upgrade filters
	@LAB_CORE=oldest $(LAB)/test molecule obstacles
	@LAB_CORE=newest $(LAB)/test molecule obstacles
	@$(LAB)/cores oldest newest engine

test-faults: lab python
	@pytest -m exhaustive tests/unit tests/awx tests/powershell -q --numprocesses 2 --dist worksteal
	@FAULTS=1 $(LAB)/cores words newest
	@tests/fuzz/run $(FUZZ)

molecule: lab python
	@$(LAB)/test molecule $(SCENARIO)

fleet: lab python
	@$(DEV) $(LAB)/images
	@$(DEV) $(LAB)/fleet up
	@$(DEV) ansible-playbook -i .lab/dev/inventory.yml $(LAB)/playbooks/prepare.yml

fleet-down: python
	@$(DEV) $(LAB)/fleet down

try: .lab/dev/inventory.yml
	@ansible-playbook -i .lab/dev/inventory.yml $(if $(HOST),--limit $(HOST)) playbooks/$(PLAY).yml $(ARGS)

converge verify: .lab/dev/inventory.yml
	@$(DEV) $(LAB)/scenario $@ $(SCENARIO)

.lab/dev/inventory.yml:
	@echo 'There is no fleet to try things on; make fleet brings one up.' >&2; exit 2

bench: python
	@tests/bench/run.py $(BENCH)

clean: demo-down
	@echo 'clean: removing the other fleets and the caches of the tools'
	@for lab in .lab/*/lab; do \
		[ ! -e "$$lab" ] || MAILFLEET_LAB=$$(cat "$$lab") MAILFLEET_LAB_DIR=$${lab%/lab} $(LAB)/fleet down; \
	done
	@rm -rf .cache .ansible .mypy_cache .ruff_cache .pytest_cache .hypothesis .venv .lab tests/output
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
