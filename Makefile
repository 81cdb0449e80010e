# Every command of the project. Each but gpu sets up what it needs; the first run downloads about 6 GB (torch and the book's tools).
PYTHON ?= python3
CONSTRAINTS ?= constraints.txt
NAME ?=
ARGS ?=
MINUTES ?=
SCALE ?= both
CORES ?= 1
OUT ?= _build/gpu/out

BIN := .venv/bin
RUN_TESTS := $(BIN)/python -m pytest
# Limits are there to end what hangs, not to judge how fast a machine is.
NBVAL_LIMITS := --nbval-cell-timeout=3600 --nbval-kernel-startup-timeout=600
# Three processes with one thread each: on two cores, since tests of processes wait a third of their time. A file, and a notebook, stays in one of them.
SIDE_BY_SIDE := OMP_NUM_THREADS=1 $(RUN_TESTS) -n 3
BOOK_PYTHON = $(if $(wildcard $(BIN)/jupyter-book),$(BIN),.venv-html/bin)/python
# A borrowed machine has torch and often no network, so that nothing can be installed there.
GPU_PYTHON = $(if $(wildcard .venv/stamp),$(BIN)/python,$(PYTHON))
GPU_LACKS := import importlib.util as found; print(*(name for name in ("torch", "torchvision", "numpy") if not found.find_spec(name)))
SETUP := $(PYTHON) tools/install.py --constraints "$(CONSTRAINTS)"

.DEFAULT_GOAL := help
.PHONY: help install book html sphinx slides pdf zip site dist release notebooks notebook lab test unit nbval verify mutations evidence corners bench gpu gpu-pack lint format clean

help: ## list every command
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: ## set up .venv with the package, the notebooks, the book and the tests
	@$(SETUP) all

book: install ## execute the notebooks that are out of date, then build the book
	@OMP_NUM_THREADS=1 $(BIN)/python tools/execute_notebooks.py --workers 2
	@$(BIN)/python tools/build_book.py

html: ## build the book from the stored outputs alone (no torch needed)
	@$(SETUP) html
	@$(BOOK_PYTHON) tools/build_book.py

sphinx: ## build the book with the newest Sphinx, without Jupyter Book, in an environment of its own: _build/sphinx/html
	@$(PYTHON) tools/install.py sphinx --constraints ""
	@.venv-sphinx/bin/python tools/build_sphinx.py

slides: ## build the lecture: _build/slides/index.html, and bisam.pdf where there is a Chromium
	@$(SETUP) html
	@$(BOOK_PYTHON) tools/build_slides.py

pdf: install ## print the book with Chromium: _build/pdf/bisam.pdf, and bisam-handout.pdf without the solutions
	@$(BIN)/python tools/print_book.py

zip: html ## pack the book into one file that reads without a network: _build/bisam-VERSION-site.zip
	@$(BOOK_PYTHON) tools/zip_site.py

site: ## build what is published: the book from here (latest) and from the last tag (stable), in _build/site
	@$(PYTHON) tools/publish.py site

dist: install ## build the package into _build/dist, check it, and use the wheel in an empty environment
	@rm -rf _build/dist && $(BIN)/python -m build --outdir _build/dist . > _build/dist.txt 2>&1 || { cat _build/dist.txt; exit 1; }
	@$(BIN)/twine check --strict _build/dist/*
	@$(BIN)/python tools/check_wheel.py

release: zip pdf dist ## gather the files of a release with their digests: _build/release
	@$(BIN)/python tools/publish.py release

notebooks: install ## execute all notebooks again, out of date or not: make notebooks SCALE=laptop (the pages, up to an hour), smoke or both
	@OMP_NUM_THREADS=1 $(BIN)/python tools/execute_notebooks.py --all --scale $(SCALE) --workers 2

notebook: install ## run one with parameters: make notebook NAME=first_run ARGS="-p seeds 4 --scale laptop"
	@$(BIN)/bisam notebook $(NAME) $(ARGS)

lab: install ## open the notebooks in JupyterLab, each with a form of its parameters: make lab ARGS="--no-browser"
	@$(SETUP) lab
	@BISAM_FORM=1 $(BIN)/jupyter-lab notebooks $(ARGS)

test: lint ## all tests: style, units, doctests, notebooks, book, browser
	@echo "==> notebooks: every cell executed, tagged outputs compared; unit tests, doctests and properties; meanwhile the strict build of the book"
	@mkdir -p _build; $(BIN)/python tools/build_book.py > _build/said.txt 2>&1 & book=$$!; \
	$(SIDE_BY_SIDE) -q -m "not book" --nbval-lax $(NBVAL_LIMITS) tests notebooks; tested=$$?; \
	wait $$book; built=$$?; cat _build/said.txt; exit $$((tested + built))
	@echo "==> book: links, headless browser"
	@$(SIDE_BY_SIDE) --dist worksteal -q -m book tests/book

unit: install ## the quick part of the tests (about 155 s of CPU, half of it on each of two cores)
	@$(SIDE_BY_SIDE) -q -m "not book and not slow"

nbval: install ## execute the notebooks at scale smoke and compare the tagged outputs
	@$(SIDE_BY_SIDE) -q --nbval-lax $(NBVAL_LIMITS) $(ARGS) notebooks

verify: install ## execute the pages and compare every stored output (on the pinned versions; up to an hour)
	@$(SIDE_BY_SIDE) -q --nbval $(NBVAL_LIMITS) --scale laptop notebooks

evidence: install ## work through the missing runs, most valuable first: make evidence MINUTES=30 CORES=1
	@OMP_NUM_THREADS=1 $(BIN)/bisam evidence --cores $(CORES) $(if $(MINUTES),--minutes $(MINUTES)) $(ARGS)

corners: install ## run notebooks at the ends of their parameters' ranges and at random points: make corners NAME=first_run ARGS="--random 6"
	@OMP_NUM_THREADS=1 $(BIN)/python tools/corners.py $(NAME) $(or $(ARGS),--random 4)

mutations: install ## plant faults one at a time in a copy, and say which tests and notebooks notice: make mutations ARGS="step --witness tests"
	@$(BIN)/python tools/mutations.py $(ARGS)

bench: install ## what a step costs beyond its floor, into results/benchmarks.json: make bench ARGS="--quick"
	@$(BIN)/python benchmarks/bench.py $(ARGS)

gpu: ## check, time and record on a GPU that is here; installs nothing: make gpu MINUTES=15 OUT=folder
	@lacks=$$($(GPU_PYTHON) -c '$(GPU_LACKS)') && test -z "$$lacks" || { echo "==> failed: make gpu needs a Python with torch, torchvision and numpy;" \
	"$(GPU_PYTHON) lacks $${lacks:-all, for it does not run}. Name another, make gpu PYTHON=python3.12, or set up .venv with make install" >&2; exit 1; }
	@$(GPU_PYTHON) -m bisam.gpu --minutes $(or $(MINUTES),15) --out $(OUT) $(ARGS)

gpu-pack: install ## write the folder that does the same on a machine without a network: _build/gpu
	@$(BIN)/python -m bisam.gpu.pack $(ARGS)

lint: install ## check the style of all code, notebooks included
	@echo "==> style"
	@$(BIN)/ruff check -q .

format: install ## mend what the style check can mend
	@$(BIN)/ruff check --fix .

clean: ## remove what was built (not the environment)
	rm -rf _build build *.egg-info .pytest_cache .ruff_cache .hypothesis
