# `make demo` runs the whole main job, `make test` the tests. Both install into .venv first where needed.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
BENCH_STAMP := .venv/.installed-bench

.PHONY: demo demo-scratch test lint bench

# The seconds of the install that this very `make` did, if it did one, go into the demo's summary.
WITH_INSTALL_SECONDS = INTERNAL_RL_INSTALL_SECONDS=$$(cat .venv/install_seconds 2>/dev/null); \
	rm -f .venv/install_seconds; export INTERNAL_RL_INSTALL_SECONDS;

demo: $(STAMP)
	$(WITH_INSTALL_SECONDS) $(BIN)/internal-rl demo --resume

demo-scratch: $(STAMP)
	$(WITH_INSTALL_SECONDS) $(BIN)/internal-rl demo --scratch --resume --run runs/demo-scratch

test: $(STAMP)
	$(BIN)/python -m pytest --typecheck -n 2 --dist loadgroup

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

bench: $(BENCH_STAMP)
	$(BIN)/python scripts/benchmark.py env
	$(BIN)/python scripts/benchmark.py stages

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
		|| { echo "Python 3.11 to 3.13 is needed; name one with: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@start=$$(date +%s) \
		&& { test -x $(BIN)/python || $(PYTHON) -m venv .venv; } \
		&& echo "installing into .venv" \
		&& $(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e ".[dev]" \
		&& echo $$(( $$(date +%s) - start )) > .venv/install_seconds
	@touch $@

$(BENCH_STAMP): $(STAMP)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e ".[dev,bench]"
	@touch $@
