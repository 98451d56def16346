# make demo       trains a policy on the demonstrations in demonstrations/ and scores it
# make watch      a trained policy that comes with dpjax pushes the T: runs/watch/rollouts.mp4
# make test       the tests that a contributor runs every few minutes
# make test-all   all tests: whole trainings, kills, hostile files, the wheel
# make check      linter, formatter and type checker
# make .venv-openpi/ready   openpi's client, for its tests (part of make test-all)
# make bench-peers   PyTorch and LeRobot, for python -m experiments.throughput
PYTHON ?= python3
VENV = .venv
BIN = $(VENV)/bin
RUN ?= runs/demo
PYTEST = $(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder --durations=10
TYPED = dpjax/core dpjax/diffusion dpjax/policies dpjax/inference

.PHONY: demo watch test test-all check clean bench-peers

demo: export SINCE := $(shell date +%s)
demo: $(VENV)/ready
	$(BIN)/python -m dpjax.train --config pusht_demo --workdir $(RUN)
	$(BIN)/python -m dpjax.evaluate --run $(RUN) --episodes 50 --since $(SINCE)

watch: $(VENV)/ready
	$(BIN)/python -m dpjax.evaluate --run pusht_demo --episodes 4 --film 4 --out runs/watch

test: $(VENV)/ready
	$(PYTEST) -m "not slow" tests

# The second line compares numbers with those of ordinary processes, compiled as these are.
test-all: $(VENV)/ready .venv-openpi/ready
	$(PYTEST) --ignore tests/test_evidence.py tests
	DPJAX_TEST_ORDINARY=1 $(PYTEST) tests/test_evidence.py

check: $(VENV)/ready
	$(BIN)/ruff check dpjax configs examples experiments tests setup.py
	$(BIN)/ruff format --check dpjax configs examples experiments tests setup.py
	$(BIN)/mypy $(TYPED)

# uv is ten times faster than pip; either installs the same pinned versions.
$(VENV)/ready: requirements.txt setup.cfg setup.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "dpjax needs Python 3.11 or newer; make PYTHON=/path/to/python3.11"; exit 1; }
	@echo "installing the pinned packages into $(VENV) (once, about a minute) …"
	@if command -v uv > /dev/null; then \
	  uv venv -q --allow-existing --python $(PYTHON) $(VENV) && \
	  VIRTUAL_ENV=$(VENV) uv pip install -r requirements.txt && \
	  VIRTUAL_ENV=$(VENV) uv pip install -q --no-deps -e . ; \
	else \
	  $(PYTHON) -m venv $(VENV) && \
	  $(BIN)/python -m pip install -q --progress-bar on --disable-pip-version-check \
	    -r requirements.txt && \
	  $(BIN)/python -m pip install -q --disable-pip-version-check --no-deps -e . ; \
	fi
	@touch $@

# openpi's own client, which tests talk to the policy server with: it needs a numpy before 2, and
# typing_extensions, which it does not declare.
.venv-openpi/ready:
	$(PYTHON) -m venv .venv-openpi
	.venv-openpi/bin/python -m pip install -q --disable-pip-version-check \
	  openpi-client==0.1.2 typing_extensions "numpy<2"
	@touch $@

# LeRobot's pins exclude the newest PyTorch: it is installed as it is, with what it imports.
bench-peers:
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install -q -r experiments/throughput/requirements.txt
	.venv-peers/bin/python -m pip install -q --no-deps lerobot==0.4.4

clean:
	rm -rf $(VENV)
