# Everything runs inside .venv, which the first target that needs it creates.
PYTHON ?= python3
BIN := .venv/bin
WORKERS ?= 2

.PHONY: test test-fast fuzz mutants lint docs gallery tutorial bench bench-gpu clean

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

tutorial: .venv/.installed
	$(BIN)/python tutorials/vmas_navigation_ob.py

# a process for each of two cores, a file at a time, since its tests share what is dear to set up; files without slow tests first
PYTEST := $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

test: lint
	$(PYTEST)

# the tests for daily work, in a minute
test-fast: .venv/.installed
	$(PYTEST) -m "not slow"

# new cases for MINUTES, against slow loops and dense references; a failing one is printed as a test to paste
MINUTES ?= 10
fuzz: .venv/.installed
	MINUTES=$(MINUTES) $(BIN)/python -m pytest tests/fuzz \
		--hypothesis-profile fuzz --numprocesses $(WORKERS) --dist worksteal

# the library with a mistake in it, some forty times: the short profile must fail
mutants: .venv/.installed
	OMP_NUM_THREADS=1 $(BIN)/python tests/fuzz/mutants.py

lint: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# the site, in docs/_build/html; the tutorials are shown as they stand, without their output
docs: .venv/.installed
	$(BIN)/python -m sphinx -W --keep-going -n -q docs docs/_build/html

# the same with the output and pictures of every tutorial, which runs in half an hour on two cores
gallery: .venv/.installed
	GALLERY=1 $(BIN)/python -m sphinx -W --keep-going -n docs docs/_build/html

# the figures of benchmarks/results.json in a quarter of an hour; the other scripts take up to an hour each
bench: .venv/.installed
	for name in cubature_accuracy advantage_cost training_loop results; do \
		$(BIN)/python benchmarks/$$name.py || exit 1; done

# the loops that docs/benchmarks/gpu.md sets goals for, and the cost of the advantage
bench-gpu: .venv/.installed
	for sizes in FRAMES=6000 "FRAMES=60000 ENVS=3000"; do for name in advantage_cost training_loop; do \
		env DEVICE=cuda BATCHES=4 LOOPS="OB; OB, compiled" $$sizes $(BIN)/python benchmarks/$$name.py || exit 1; done; done

clean:
	rm -rf .venv runs docs/_build docs/tutorials docs/api/generated
