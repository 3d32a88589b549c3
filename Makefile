# The commands of this project. `make` lists them.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# One process a core; a file's tests stay together, because they share what they compile.
PARALLEL ?= -n auto --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help demo test check-all compilers buildroot-check bench bench-kernels large golden layouts lint

help:            ## list the commands
	@grep -hE '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

demo: $(VENV)/installed ## compile the example model for this machine and let it write
	@$(BIN)/bitnetc compile examples/austen/model --name austen --target native -o demo
	@echo
	@demo/bin/austen -p '"My dear Mr. Bennet,"' -n 90
	@echo
	@demo/bin/austen -p 'And it came to pass' -n 90 --seed 1
	@echo
	@echo "Your turn: demo/bin/austen -p 'It is a truth universally acknowledged, that' --seed 1"

test: $(VENV)/tested ## run the tests (what cannot run here is named)
	$(BIN)/pytest $(PARALLEL)

check-all: $(VENV)/tested ## run the tests, and fail where one cannot run
	BITNETC_NO_SKIP=1 $(BIN)/pytest $(PARALLEL)

compilers: $(VENV)/tested ## emitted C under every GCC and Clang that is installed
	BITNETC_ALL_COMPILERS=1 $(BIN)/pytest tests/e2e/test_compilers.py

buildroot-check: $(VENV)/installed ## BUILDROOT=folder FRAGMENT=file: a package with Buildroot's own make
	BITNETC=$(CURDIR)/$(BIN)/bitnetc tests/buildroot.sh $(BUILDROOT) buildroot-check $(FRAGMENT)

bench: $(VENV)/installed ## speed of the example model on this machine
	@$(BIN)/bitnetc compile examples/austen/model --name austen --target native -o demo
	demo/bin/austen --bench -t 1
	demo/bin/austen --bench -t 2

bench-kernels: $(VENV)/installed ## time each kernel; the source of the figures in targets/
	$(BIN)/python bench/kernels.py

large: $(VENV)/installed ## FOLDER=folder: a model with 3.9 GB of weights, checked; takes 12 GB of disk
	$(if $(FOLDER),,$(error FOLDER=folder says where to put 12 GB))
	@test -d $(FOLDER)/large || $(BIN)/bitnetc synth --like llama3-8b-1.58 -o $(FOLDER)/large
	$(BIN)/python bench/large.py $(FOLDER)/large -o $(FOLDER)/built

golden: $(VENV)/tested ## write the golden files anew, to be reviewed as a diff
	$(BIN)/pytest tests/golden --update-golden

layouts: $(VENV)/installed ## write runtime_c/bnc_layouts.h from bitnetc/layout.py
	$(BIN)/python -m bitnetc.layouts_header

lint: $(VENV)/tested ## ruff, mypy, clang-format, freshness of generated files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run -Werror $$(find runtime_c tests examples -name '*.[ch]' -not -path 'tests/golden/*')
	$(BIN)/python -m bitnetc.layouts_header --check

$(VENV)/bin/python:
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "$(PYTHON) cannot make a virtual" \
		"environment: sudo apt-get install python3-venv"; exit 1; }

$(VENV)/installed: pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install -q -e .
	@touch $@

$(VENV)/tested: pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install -q -e '.[test]'
	@touch $(VENV)/installed $@
