# The commands of this repository. `make demo` and `make test` need only Python 3.11 (with venv).
PYTHON ?= python3.11
BIN := .venv/bin
DEMO := demo
BUILT := build
UV_COMPILE := $(BIN)/uv pip compile -q --no-header --no-emit-index-url --generate-hashes --python-version 3.11
# Name of the image, its variant (cpu or gpu), and the command that builds it: a tag and docker's arguments follow it.
IMAGE ?= localhost/mrigan:dev
ACCELERATOR ?= cpu
BUILD ?= docker build -t

# Training images of `make quality`: a folder with one folder per class.
DATA ?= ../shared/data/brain_tumor_dataset

.PHONY: demo example test test-fast check dashboards settings chart-readme image e2e e2e-scale e2e-chaos e2e-evictions e2e-soak chaos quality
.PHONY: weights bench bench-gpu bench-scale bench-peers lock licences sbom clean

demo: .venv/run  ## a small run of the whole pipeline on phantom images
	$(BIN)/mrigan phantom --out $(DEMO)/data --count 100
	$(BIN)/mrigan pipeline --preset demo --data $(DEMO)/data --storage $(DEMO)/storage
	@echo "open the report: $$(ls -t $(DEMO)/storage/runs/*/report/report.html | head -1)"

example: demo  ## write docs/example-report.html, the report of the demo
	cp "$$(ls -t $(DEMO)/storage/runs/*/report/report.html | head -1)" docs/example-report.html

test: .venv/dev  ## all tests without a cluster
	$(BIN)/pytest -n 2 --dist worksteal

test-fast: .venv/dev  ## the fast half of the tests
	$(BIN)/pytest -n 2 --dist worksteal -m "not slow"

check: .venv/dev  ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/hadolint images/Dockerfile

dashboards: .venv/dev  ## write the chart's dashboards from dashboards/
	$(BIN)/python -m dashboards

image:  ## build the container image
	$(BUILD) $(IMAGE) --build-arg ACCELERATOR=$(ACCELERATOR) -f images/Dockerfile .

e2e: .venv/dev  ## tests on a cluster, with KUBECONFIG, kubectl, helm, argo, an S3 server, and the image in the cluster
	IMAGE=$(IMAGE) $(BIN)/pytest -v -n 2 --dist loadfile $(addprefix tests/cluster/,test_metrics.py test_run.py test_failures.py test_chart.py test_documents.py)

e2e-scale: .venv/dev  ## a plan of 588 pods that do nothing, on the cluster of make e2e: a quarter of an hour and more
	IMAGE=$(IMAGE) $(BIN)/pytest -v tests/cluster/test_size.py

e2e-chaos: .venv/dev  ## faults of the cluster of make e2e, during whole workflows: half an hour
	IMAGE=$(IMAGE) $(BIN)/pytest -v tests/cluster/test_chaos.py

e2e-evictions: .venv/dev  ## what a preemption costs, on the cluster of make e2e: half an hour
	IMAGE=$(IMAGE) $(BIN)/pytest -v tests/cluster/test_evictions.py

e2e-soak: .venv/dev  ## 200 workflows, 8 at a time, on the cluster of make e2e: what do they leave?
	IMAGE=$(IMAGE) $(BIN)/pytest -v tests/cluster/test_soak.py

chaos: .venv/dev  ## faults of one machine: kills, a faulty S3 server, two runs at once, damaged images
	$(BIN)/python -m bench.chaos

quality: .venv/dev  ## measure accuracy on five folds, stage by stage; continues where it stopped
	$(BIN)/python -m bench.quality --data $(DATA)

weights: .venv/dev  ## make the packaged weights, and measure how well they read the images in DATA
	$(BIN)/python -m bench.weights --data $(DATA)

bench: .venv/dev  ## measure speed beside what else there is: docs/speed.md; with PyTorch after make bench-peers
	$(BIN)/python -m bench.speed

bench-gpu: .venv-gpu/run  ## the same on a GPU, with the packages of the GPU image
	.venv-gpu/bin/python -m bench.speed

bench-scale: .venv/dev  ## measure how time and memory grow: docs/scale.md; a quarter of an hour on 2 quiet cores
	$(BIN)/python -m bench.scale

bench-peers: .venv-peers/run  ## PyTorch and imagededup, for comparisons in make bench: 5.7 GB

chart-readme: .venv/dev  ## write helm/mrigan/README.md from the comments in values.yaml
	$(BIN)/python -m docs.write_values

settings: .venv/dev  ## write docs/settings.md and the workflow's parameters from jobs/settings.py
	$(BIN)/python -m docs.write_settings

lock: .venv/dev  ## update the locked requirements
	$(UV_COMPILE) pyproject.toml --universal --extra cpu --upgrade -o images/requirements-cpu.txt
	$(UV_COMPILE) pyproject.toml --universal --extra cpu --group dev -c images/requirements-cpu.txt --upgrade -o images/requirements-dev.txt
	$(UV_COMPILE) pyproject.toml --python-platform x86_64-manylinux_2_28 --extra gpu -c images/requirements-cpu.txt --upgrade -o images/requirements-gpu.txt
	$(UV_COMPILE) --universal --group peers --upgrade -o bench/requirements-peers.txt

licences: .venv/dev  ## write docs/licences.md from the installed packages
	$(BIN)/python -m docs.write_licences

sbom: $(BUILT)/sbom-cpu.cdx.json $(BUILT)/sbom-gpu.cdx.json  ## list the packages of the images for a release: CycloneDX 1.6

clean:
	rm -rf .venv .venv-gpu .venv-peers $(DEMO)

$(BUILT)/sbom-%.cdx.json: images/requirements-%.txt pyproject.toml .venv/dev
	@mkdir -p $(BUILT)
	$(BIN)/python -m cyclonedx_py requirements --pyproject pyproject.toml --spec-version 1.6 --output-reproducible -o $@ $<

.venv/run: images/requirements-cpu.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r images/requirements-cpu.txt
	$(BIN)/pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e . --config-settings editable_mode=compat
	@touch $@

.venv/dev: .venv/run images/requirements-dev.txt
	$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r images/requirements-dev.txt
	@touch $@

.venv-gpu/run: images/requirements-gpu.txt pyproject.toml
	$(PYTHON) -m venv .venv-gpu
	.venv-gpu/bin/pip install -q --disable-pip-version-check --require-hashes -r images/requirements-gpu.txt
	.venv-gpu/bin/pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e . --config-settings editable_mode=compat
	@touch $@

.venv-peers/run: bench/requirements-peers.txt
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/pip install -q --disable-pip-version-check --require-hashes -r bench/requirements-peers.txt
	@touch $@
