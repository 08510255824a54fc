# Two commands: `make demo` runs the main job on real images, `make test` the tests. Both install what they need to .venv.
PYTHON ?= python3
SCALE ?= 1
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-all wheel-check check bench docs notebook clean

demo: $(VENV)/.demo
	@test -f demo/pipeline.yaml || $(BIN)/pipeline init demo --demo
	@$(BIN)/pipeline run -c demo/pipeline.yaml
	@$(BIN)/pipeline report -c demo/pipeline.yaml
	@echo "  (the command lies in $(BIN); to have it at hand: . $(BIN)/activate)"

test: $(VENV)/.test
	$(BIN)/python -m pytest -m "not slow and forks"
	$(BIN)/python -m pytest -m "not slow and not forks" --numprocesses auto --maxprocesses 4 --dist loadfile

test-all: $(VENV)/.test
	$(BIN)/python -m pytest --scale $(SCALE) -m forks
	$(BIN)/python -m pytest --scale $(SCALE) -m "not forks" --numprocesses auto --maxprocesses 4 --dist loadfile

wheel-check: $(VENV)/.test
	$(BIN)/python -m pytest tests/test_wheel.py

check: $(VENV)/.dev $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.demo
	$(BIN)/python -m benchmarks.extract
	$(BIN)/python -m benchmarks.memory
	$(BIN)/python -m benchmarks.numerics
	$(BIN)/python -m benchmarks.rerun
	$(BIN)/python -m benchmarks.warm
	$(BIN)/python -m benchmarks.heads
	$(BIN)/python -m benchmarks.report

docs: $(VENV)/.docs
	$(BIN)/python -m tests.support.generate_reference
	$(BIN)/python -m mkdocs build --strict

notebook: $(VENV)/.demo $(VENV)/.notebook
	$(BIN)/python -m tests.support.notebook

clean:
	rm -rf $(VENV) demo demo-notebook bench-out site

# One stamp for each extra: .venv/.demo, .venv/.test, .venv/.dev
$(VENV)/.%: setup.cfg pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing frozenbase[$*] to $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[$*]'
	@touch $@
