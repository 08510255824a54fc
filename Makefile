# Two commands: `make demo` runs the main job on real images, `make test` the tests. Both install what they need to .venv.
PYTHON ?= python3
SCALE ?= 1
VENV := .venv
BIN := $(VENV)/bin
LOWEST := .venv-lowest
ON_LOWEST := tests/test_end_to_end.py::test_each_engine_gives_the_rows_of_keras tests/cache/test_npz.py tests/cache/test_shards.py \
	tests/pipeline/config/test_yaml_file.py tests/pipeline/config/test_json_schema.py tests/pipeline/cli/test_main.py \
	tests/stages/data tests/stages/metrics/test_intervals.py tests/stages/heads/test_fitted.py tests/stages/targets/test_labels.py

.PHONY: demo test test-all wheel-check lowest check bench docs notebook clean

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

# The lowest versions that setup.cfg allows, in an environment of their own: tests of what most depends on libraries, and
# 60 of the demo's images in both engines.
lowest: $(LOWEST)/.made
	$(LOWEST)/bin/python -m pytest $(ON_LOWEST)

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
	rm -rf $(VENV) $(LOWEST) demo demo-notebook bench-out site

# One stamp for each extra: .venv/.demo, .venv/.test, .venv/.dev
$(VENV)/.%: setup.cfg pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing frozenbase[$*] to $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[$*]'
	@touch $@

$(LOWEST)/.made: setup.cfg pyproject.toml
	@test -x $(LOWEST)/bin/python || $(PYTHON) -m venv $(LOWEST)
	@echo "installing the lowest versions of frozenbase[test] to $(LOWEST)"
	@$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check uv
	@$(LOWEST)/bin/uv pip install --quiet --python $(LOWEST)/bin/python --resolution lowest-direct -e '.[test]'
	@touch $@
