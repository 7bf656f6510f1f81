# SPDX-License-Identifier: Apache-2.0
# Each target installs what it needs first (packaging/bootstrap); YES=1 answers its question.
export PATH := $(PATH):/usr/sbin:/sbin

.PHONY: help demo test test-usb test-system test-container deb check bench soak clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /make \1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 20

demo: ## a simulated module, a broker and the daemon, to try (ONCE=1 a tour; BROKER=host:port, DEVICE=/dev/…, SMS_TO=)
	@packaging/bootstrap demo
	@.venv/bin/python -m atrund.demo

test: ## linters, types and all tests, on Python 3.11 and 3.13
	@packaging/bootstrap test
	@packaging/test

test-usb: ## the daemon and a USB modem that is unplugged, in a virtual machine (a minute; the first time two)
	@packaging/bootstrap usb
	@packaging/test-usb

test-system: ## the Debian package under a real systemd, from its installation to its purge (minutes; needs root; SUITE=trixie)
	@packaging/bootstrap system
	@packaging/test-system $(SUITE)

test-container: ## the example of a container, built and run by podman (a minute; needs root, and no registry)
	@packaging/bootstrap container
	@packaging/test-container

deb: ## the Debian package, as build/deb/atrund_VERSION_all.deb
	@packaging/bootstrap deb
	@packaging/deb/build

check: ## linters and types only
	@packaging/bootstrap test
	@packaging/test lint

bench: ## the figures: round trips, memory, start-up
	@packaging/bootstrap bench
	@.venv/bin/python -m tests.bench

soak: ## MQTT over bad networks and through RabbitMQ's nodes, then the property tests with fresh input, and much of it
	@packaging/bootstrap test
	@packaging/bootstrap soak
	@.venv/bin/python -m pytest --quiet -m soak
	@HYPOTHESIS_PROFILE=soak .venv/bin/python -m pytest --quiet --timeout=0 -m "not blackbox"

clean: ## removes what all of these made
	rm -rf .venv .venv-3.13 .npm .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist
	find atrund tests -name __pycache__ -type d -exec rm -rf {} +
