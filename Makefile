# Nestbox: what one can do here. `make` alone lists it.
.DEFAULT_GOAL := help
OS ?= 26.04
export OS

help:  ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "  %-18s %s\n", $$1, $$2}'

venv:  ## Make .venv with the controller's and the app's Python packages
	@scripts/venv

demo:  ## Build the appliance in a container that stands for a Pi (OS=24.04 or 26.04)
	@scripts/demo up

demo-down:  ## Remove every trace of the demo
	@scripts/demo down

serve:  ## Run the IM server alone, on SQLite, without Docker or root
	@scripts/serve

test:  ## Run everything that CI runs
	@scripts/test

lint:  ## Run ansible-lint, yamllint and ruff
	@scripts/test lint

test-app:  ## Run the app's tests
	@scripts/test app

molecule:  ## Run one Molecule scenario: make molecule ROLE=haproxy
	@scripts/molecule $(or $(ROLE),$(error say which one: make molecule ROLE=haproxy))

bench: venv  ## Measure the IM server, or compare: make bench PEER=ejabberd|prosody (ARGS="servers acks": some tables)
	@bench/run $(if $(PEER),--peer $(PEER)) $(ARGS)

chaos: venv  ## Kill workers, Valkey and MariaDB under load and look for lost messages (ARGS="--kills 100 --seed 2")
	@bench/chaos $(ARGS)

security: venv  ## Scan the demo of both releases, or of one (OS=24.04), and print each figure beside its goal
	@.venv/bin/python scripts/security $(if $(filter file,$(origin OS)),,$(OS))

capacity: venv  ## See how many users an appliance holds: the demo, or HOST=... (ARGS="--help" lists the options)
	@bench/capacity $(HOST) $(ARGS)

test-vm:  ## Prove on a real kernel, in a QEMU machine, what containers cannot (as root; ARCH=arm64: a Pi 4's core)
	@scripts/test-vm

requirements: venv  ## Pin requirements.in anew into requirements.txt (needs uv)
	uv pip compile --upgrade --generate-hashes --universal --python-version 3.11 --no-emit-index-url --no-header --no-annotate \
	  --quiet requirements.in -o requirements.txt

clean:  ## Remove the virtual environment and the tests' leftovers
	rm -rf .venv .ansible .test .cache

.PHONY: help venv demo demo-down serve test lint test-app molecule bench chaos capacity test-vm security requirements clean
