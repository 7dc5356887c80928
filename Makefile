# `make demo` and `make test` are all that a fresh machine needs; both install into .venv first.
PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV := .venv
EXTRAS := dev
BIN := $(VENV)/bin

.PHONY: install docs demo test test-torch test-all lint clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml Makefile
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Penjing needs Python 3.11 or newer; set PYTHON=python3.11")'
	@echo "Installing PyTorch and what Penjing needs beside it into $(VENV): some minutes, and about 2 GB on disk with a CPU build of PyTorch."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check $(TORCH)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[$(EXTRAS)]'
	touch $@
	@echo "Installed. Try 'make demo', or '$(BIN)/penjing --help'."

demo: install
	$(BIN)/penjing demo
	@echo "Next, your own model: '$(BIN)/penjing compress --help', and README.md."

# One process per core, each on one thread: threads of several processes would wait for each other. Files in alphabetical order:
# end-to-end runs, which take longest, come early, so that no process ends long before the others.
test: install docs
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

# The reference in build/reference, from the docstrings; a warning is an error. It takes a few seconds.
docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# `make test-torch VERSION=2.14.1`: the tests on another PyTorch, in an environment of its own.
test-torch:
	$(if $(VERSION),,$(error Say which PyTorch: make test-torch VERSION=2.14.1))
	$(MAKE) test VENV=.venv-torch-$(VERSION) TORCH=torch==$(VERSION)

# The tests on all runtimes, in an environment of its own: make test has ONNX Runtime, OpenVINO and PyTorch alone.
test-all:
	$(MAKE) test VENV=.venv-all EXTRAS=dev,executorch,litert

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) .venv-all build dist src/*.egg-info
