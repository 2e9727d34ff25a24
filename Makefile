# Every target works in a clean clone: it makes .venv first if it has to, and reinstalls nothing a second time.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   := .venv
BIN    := $(VENV)/bin
# Processes, each with whole test modules: what a module prepares is prepared once. PARALLEL= for one process. Three
# for two cores: a test that waits for a process or a limit leaves its core to others.
PARALLEL ?= -n 3 --dist loadfile
STAMP  := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install js js-install js-types web demo test test-fast coverage test-system test-slow fuzz fuzz-device chaos bench-devices bench-ingest bench-web readme docs lint clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP) ## make .venv and install gkt with everything it can use

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[all,dev]'
	@touch $@

demo: install ## train a ResNet-55 from four ResNet-8 devices on this machine, some minutes
	$(BIN)/gkt demo $(ARGS)

lint: install ## ruff, import rules, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

test: lint ## lint, type-check and run every test that is marked neither system nor slow
	$(BIN)/python -m pytest $(PARALLEL) $(ARGS)

# Where tests train, export, count or judge many devices: what of them would be run takes longer than all others.
NOT_FAST := $(addprefix --ignore=tests/,edge_export edge_runtime/test_required_tap.py gkt_core/algorithms gkt_core/nn \
	gkt_core/data/test_datasets.py profiling/device profiling/experiments profiling/privacy server_app/quarantine \
	server_app/rounds/test_sync_sequences.py server_app/store/test_storage_faults.py server_app/trainer)

test-fast: install ## tests that start no process, listen, export or train not, a minute and a quarter
	$(BIN)/python -m pytest --fast -rfE $(NOT_FAST) $(PARALLEL) $(ARGS)

coverage: install ## the tests of `make test` with the lines that none of them reaches
	$(BIN)/python -m pytest --cov $(PARALLEL) $(ARGS)

test-system: install ## whole runs and commands, tens of seconds each: CI runs them after the others
	$(BIN)/python -m pytest -m system $(PARALLEL) $(ARGS)

test-slow: install ## the tests that take minutes
	$(BIN)/python -m pytest -m slow $(ARGS)

js: js-install ## build the TypeScript device and run its own tests
	cd edge_runtime/javascript && npm test

# By the lock file, without install scripts: CPU libraries are in the packages. Nothing else of `make` needs it.
js-install: edge_runtime/javascript/node_modules/.package-lock.json ## install what the TypeScript device needs, with Node's npm

edge_runtime/javascript/node_modules/.package-lock.json: edge_runtime/javascript/package-lock.json
	cd edge_runtime/javascript && ONNXRUNTIME_NODE_INSTALL_CUDA=skip npm ci --ignore-scripts --no-audit --no-fund
	@touch $@

web: js-install ## build the page at /join, with which a phone takes part; what comes of it is committed
	cd edge_runtime/javascript && node build-web.mjs

js-types: install js-install ## write the types of the wire's messages for TypeScript, from the server's OpenAPI document
	$(BIN)/python -m tests.edge_runtime.javascript.messages

fuzz: install ## send N bent requests (20,000) of SEED to the server, half as many over sockets: no 5xx, and a refusal changes nothing
	GKT_FUZZ_REQUESTS=$(or $(N),20000) GKT_FUZZ_SEED=$(or $(SEED),0) $(BIN)/python -m pytest tests/server_app/web/test_fuzz.py tests/server_app/web/test_fuzz_sockets.py -m '' -s --timeout=0

fuzz-device: install ## send devices of both engines N bent answers (2,000) of SEED: exit codes of the table, nothing outside
	GKT_FUZZ_ANSWERS=$(or $(N),2000) GKT_FUZZ_SEED=$(or $(SEED),0) $(BIN)/python -m pytest tests/edge_runtime/test_fuzz_device.py -m '' -s --timeout=0

readme: install ## write the measured tables of docs/results.md from profiling/results
	$(BIN)/python -m profiling.readme.tables

docs: install ## write docs/commands.md from the commands
	$(BIN)/python -m gkt_core.command_reference

chaos: install ## kill, stop, damage, fill, move the clock N times (20) at moments of SEED: a run must end with the same bytes
	$(BIN)/gkt profile chaos --strikes $(or $(N),20) --seed $(or $(SEED),0) $(ARGS)

bench-devices: install ## 200 devices at one server at once: memory of its processes, round by round
	$(BIN)/gkt profile load $(ARGS)

bench-waiting: install ## 200 devices that wait at one server: CPU time of both, and how soon they hear of their turn
	$(BIN)/gkt profile waiting $(ARGS)

bench-ingest: install ## body bytes a CPU-second of the server beside nginx and a ceiling, as one JSON object; needs nginx
	@$(BIN)/gkt profile ingest --json $(ARGS)

bench-web: install ## the web server beside gunicorn, granian and waitress: CPU time, memory, stalled uploads
	@$(BIN)/gkt profile web $(ARGS)

clean: ## remove .venv and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache *.egg-info
