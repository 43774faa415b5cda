# Two commands do everything on a fresh machine with Python 3.11 or newer: `make demo` and `make test`.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
LISTEN ?= 127.0.0.1:10843
# of `make chaos`
SECONDS ?= 300
ORGS ?= 50

.PHONY: demo stack test test-slow install install-test format lint types imports chaos bench check-tests dist deb lock clean

demo: install ## runs the simulator, the agent and its endpoint together
	$(BIN)/sfmtls-agent demo --listen $(LISTEN)

stack: install ## the demo with Prometheus and Alertmanager around it
	$(BIN)/python scripts/stack.py --agent $(LISTEN)

test: install-test lint types imports check-tests ## format, lint, types, import contracts and tests

install: $(VENV)/.installed ## makes .venv ready; does nothing when it is

install-test: $(VENV)/.installed-test

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# The build backend is pinned too: without --no-build-isolation pip would fetch one without a hash.
$(VENV)/.installed: pyproject.toml requirements.txt requirements-build.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt -r requirements-build.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed requirements-test.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-test.txt
	touch $@

format: install-test ## rewrites the code in the one style
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

lint:
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types:
	$(BIN)/mypy

imports:
	$(BIN)/lint-imports --no-cache

chaos: install-test ## minutes of faults at many orgs, checked against the far sides' own record
	SFMTLS_CHAOS_SECONDS=$(SECONDS) SFMTLS_CHAOS_ORGS=$(ORGS) $(BIN)/python -m pytest tests/test_chaos.py

bench: install ## an hour of measuring speed, beside others (needs nginx and blackbox_exporter)
	$(BIN)/python benchmarks/all.py

check-tests:
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

test-slow: install-test ## what takes long: systemd, packages, networks, browser, alerts end to end
	$(BIN)/python -m pytest -n 2 --dist worksteal -m slow

dist: install ## the wheel, the sdist, the manual page and the bill of materials
	rm -rf dist
	$(BIN)/python -m hatchling build --directory dist
	$(BIN)/python scripts/make_man.py > dist/sfmtls-agent.1
	$(BIN)/python scripts/make_sbom.py requirements.txt > dist/sfmtls-agent.cdx.json

deb: install ## the Debian package (needs debhelper)
	packaging/build_deb.sh --output dist

lock: ## pins every dependency with its hashes (needs uv on PATH)
	uv pip compile -q pyproject.toml --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url -o requirements.txt
	uv pip compile -q pyproject.toml --group test -c requirements.txt --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url -o requirements-test.txt
	uv pip compile -q --group build -c requirements-test.txt --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url -o requirements-build.txt

clean:
	rm -rf $(VENV) dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
