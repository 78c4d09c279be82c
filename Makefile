PYTHON ?= python3
BIN := .venv/bin
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check --no-deps

.PHONY: help venv demo test lint bench docs picture audit sbom lock

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-7s %s\n", $$1, $$2}' Makefile

venv: .venv/.installed ## a .venv with everything locked and the command .venv/bin/dx-dagster

demo: venv ## a sandbox Bitbucket Cloud, imported; ARGS=--exit ends after the import
	@$(BIN)/dx-dagster demo $(ARGS)

test: venv ## all tests; ARGS go to pytest
	$(BIN)/pytest --numprocesses auto --dist worksteal $(ARGS)

lint: venv ## style, types, walls between the rooms, and workspace.yaml
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	.ci/validate-workspace

bench: venv .venv-bench/.installed ## what an import costs, beside other ways, and the tests that measure time; ARGS="all --write" fills docs/performance.md
	$(BIN)/python -m benchmarks $(ARGS)
	$(if $(ARGS),,$(BIN)/pytest -m timing)

docs: venv ## the generated parts of docs/, written anew
	$(BIN)/python -m dx_dagster_tests.documents

picture: venv ## docs/lineage.png, docs/charts.png and docs/insights.png, taken anew from a demo
	$(BIN)/python -m dx_dagster_tests.picture

audit: .venv-audit/.installed ## known vulnerabilities of the locked packages, into dist/audit.json; it asks the network
	@mkdir -p dist && rm -f dist/audit.json
	@.venv-audit/bin/pip-audit -r requirements.lock --require-hashes --disable-pip --progress-spinner off \
		-f json -o dist/audit.json 2>dist/audit.log; status=$$?; \
		if [ -s dist/audit.json ]; then cat dist/audit.log; exit $$status; fi; \
		echo "The database of vulnerabilities cannot be reached. Nothing was audited." >&2

sbom: .venv-audit/.installed ## the packages that run as a bill of materials (CycloneDX), into dist/sbom.cdx.json
	@mkdir -p dist
	.venv-audit/bin/cyclonedx-py requirements deploy/requirements.lock --pyproject pyproject.toml --output-reproducible \
		-o dist/sbom.cdx.json

lock: venv ## resolves all locks anew
	$(BIN)/uv pip compile pyproject.toml --extra dev --extra celery --extra tracing --generate-hashes --no-emit-index-url \
		--no-emit-find-links --universal --python-version 3.11 --no-header --no-annotate --no-strip-extras -o requirements.lock
	$(BIN)/uv pip compile pyproject.toml --extra celery --constraints requirements.lock --generate-hashes \
		--no-emit-index-url --no-emit-find-links --universal --python-version 3.11 --no-header --no-annotate --no-strip-extras \
		-o deploy/requirements.lock
	$(BIN)/uv pip compile benchmarks/requirements.in --generate-hashes --no-emit-index-url --no-emit-find-links \
		--universal --python-version 3.11 --no-header --no-annotate --no-strip-extras -o benchmarks/requirements.lock
	$(BIN)/uv pip compile dx_dagster_tests/dx_clients/requirements.in --generate-hashes --no-emit-index-url \
		--no-emit-find-links --universal --python-version 3.11 --no-header --no-annotate --no-strip-extras \
		-o dx_dagster_tests/dx_clients/requirements.lock
	$(BIN)/uv pip compile deploy/audit/requirements.in --generate-hashes --no-emit-index-url --no-emit-find-links \
		--universal --python-version 3.11 --no-header --no-annotate --no-strip-extras -o deploy/audit/requirements.lock

# --no-deps: the lock is complete, and pip's resolver stumbles over hashes of packages with extras.
# uv takes a third of pip's time. It knows nothing of an index that only pip's settings name: there pip does it.
.venv/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "dx-dagster needs Python 3.11 or later; $(PYTHON) is $$($(PYTHON) --version 2>&1). Name another: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
		echo "$(PYTHON) has no venv module. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	sed -n '/^uv==/,/[^\\]$$/p' requirements.lock | $(BIN)/python $(PIP_INSTALL) --require-hashes -r /dev/stdin \
		&& $(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --compile-bytecode --require-hashes -r requirements.lock \
		|| $(BIN)/python $(PIP_INSTALL) --require-hashes -r requirements.lock
	$(BIN)/python $(PIP_INSTALL) --no-build-isolation -e .
	$(BIN)/python -m compileall -q dx_dagster
	@touch $@

# dlt stays out of .venv: it is there to be measured, and brings forty packages.
.venv-bench/.installed: benchmarks/requirements.lock
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python $(PIP_INSTALL) --require-hashes -r $<
	@touch $@

# These tools look at the lock from outside: what they need must not be part of what they judge.
.venv-audit/.installed: deploy/audit/requirements.lock
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/python $(PIP_INSTALL) --require-hashes -r $<
	@touch $@
