# `make demo` and `make test` do all the set-up on a machine with Python 3.11 or newer.

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
SEGJAX := $(BIN)/segjax
# Two processes, a file at a time: compilation, most of the time, uses one core.
PYTEST := $(BIN)/pytest -n 2 --dist loadfile
# Tests that compare with PyTorch run in CI; elsewhere, `make test PARITY=1`.
PARITY ?= $(CI)
# So do the tests of the site.
INSTALLED := .venv/.installed $(if $(PARITY),.venv/.installed-parity) \
	$(if $(CI),.venv/.installed-docs)

.PHONY: demo docs test test-fast test-faults lint install clean

demo: .venv/.installed-demo
	rm -rf runs/demo
	$(SEGJAX) train experiments/digits_unet.py --run runs/demo

test: $(INSTALLED)
	$(PYTEST)

test-fast: $(INSTALLED)
	$(PYTEST) -m "not slow and not parity"

# Thousands of damaged files and runs, hundreds of kills: a table at the end, in an hour or two.
test-faults: $(INSTALLED)
	SEGJAX_FAULTS=2000 $(PYTEST) tests/faults

# The site, with all notebooks run: build/site/index.html.
docs: .venv/.installed-docs
	$(BIN)/python -m docs.tools.build

lint: .venv/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

install: .venv/.installed

.venv/bin/pip:
	@test -n "$(PYTHON)" || { echo "error: Python 3.11 or newer is needed, none was found. Name one: make PYTHON=/path/to/python3" >&2; exit 2; }
	$(PYTHON) -m venv .venv

PIP_INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check
# jax[cuda13] where an NVIDIA driver answers; the pinned version is that of requirements.txt.
INSTALL_CUDA = @if nvidia-smi --list-gpus >/dev/null 2>&1; then \
		$(PIP_INSTALL) -c requirements.txt "jax[cuda13]"; fi

.venv/.installed: requirements.txt pyproject.toml | .venv/bin/pip
	$(PIP_INSTALL) -r requirements.txt
	$(INSTALL_CUDA)
	$(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	touch $@ .venv/.installed-demo

# Training and its report, of the same versions.
.venv/.installed-demo: requirements.txt pyproject.toml | .venv/bin/pip
	$(PIP_INSTALL) -c requirements.txt setuptools
	$(INSTALL_CUDA)
	$(PIP_INSTALL) -c requirements.txt --no-build-isolation --editable ".[onednn,report]"
	touch $@

.venv/.installed-parity: third_party/requirements.txt third_party/peers.txt .venv/.installed
	$(PIP_INSTALL) -r third_party/requirements.txt
	$(PIP_INSTALL) --no-deps -r third_party/peers.txt
	touch $@

.venv/.installed-docs: docs/requirements.txt .venv/.installed
	$(PIP_INSTALL) -c requirements.txt -r docs/requirements.txt
	touch $@

clean:
	rm -rf .venv build dist *.egg-info
