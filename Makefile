# make demo   trains a policy on the demonstrations in demonstrations/ and scores it
# make test   the tests
# make check  the linter
# make bench-peers   PyTorch and LeRobot, for python -m experiments.throughput
PYTHON ?= python3
VENV = .venv
BIN = $(VENV)/bin
RUN ?= runs/demo

.PHONY: demo test check clean bench-peers

demo: export SINCE := $(shell date +%s)
demo: $(VENV)/ready
	$(BIN)/python -m dpjax.train --config configs/pusht_demo.py --workdir $(RUN)
	$(BIN)/python -m dpjax.evaluate --run $(RUN) --episodes 50 --since $(SINCE)

test: $(VENV)/ready
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder tests

check: $(VENV)/ready
	$(BIN)/ruff check dpjax configs experiments tests

# uv is ten times faster than pip; either installs the same pinned versions.
$(VENV)/ready: requirements.txt setup.cfg
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "dpjax needs Python 3.11 or newer; make PYTHON=/path/to/python3.11"; exit 1; }
	@if command -v uv > /dev/null; then \
	  uv venv -q --allow-existing --python $(PYTHON) $(VENV) && \
	  VIRTUAL_ENV=$(VENV) uv pip install -q -r requirements.txt && \
	  VIRTUAL_ENV=$(VENV) uv pip install -q --no-deps -e . ; \
	else \
	  $(PYTHON) -m venv $(VENV) && \
	  $(BIN)/python -m pip install -q --disable-pip-version-check -r requirements.txt && \
	  $(BIN)/python -m pip install -q --disable-pip-version-check --no-deps -e . ; \
	fi
	@touch $@

# LeRobot's pins exclude the newest PyTorch: it is installed as it is, with what it imports.
bench-peers:
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install -q -r experiments/throughput/requirements.txt
	.venv-peers/bin/python -m pip install -q --no-deps lerobot==0.4.4

clean:
	rm -rf $(VENV)
