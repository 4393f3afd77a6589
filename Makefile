# Everything a person types. `make demo` and `make test` need Python 3.11 (venv) and nothing else.
PYTHON ?= python3.11
BIN := .venv/bin
DEMO := demo
UV_COMPILE := $(BIN)/uv pip compile -q --no-header --no-emit-index-url --generate-hashes --extra cpu \
	--python-version 3.11 --python-platform x86_64-manylinux_2_28 pyproject.toml

.PHONY: demo test check lock clean

demo: .venv/run  ## phantom MRI through the whole pipeline, small
	$(BIN)/mrigan phantom --out $(DEMO)/data
	$(BIN)/mrigan pipeline --preset demo --data $(DEMO)/data --storage $(DEMO)/storage
	@echo "open the report: $$(ls -t $(DEMO)/storage/runs/*/report/report.html | head -1)"

test: .venv/dev  ## every test that needs no cluster
	$(BIN)/pytest -n 2 --dist worksteal

check: .venv/dev  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

lock: .venv/dev  ## lock the requirements anew
	$(UV_COMPILE) --upgrade -o images/requirements-cpu.txt
	$(UV_COMPILE) --upgrade --group dev -o images/requirements-dev.txt

clean:
	rm -rf .venv $(DEMO)

.venv/run: images/requirements-cpu.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r images/requirements-cpu.txt
	$(BIN)/pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

.venv/dev: .venv/run images/requirements-dev.txt
	$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r images/requirements-dev.txt
	@touch $@
