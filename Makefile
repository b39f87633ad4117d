# One command each. `make setup` needs Python 3.11 with venv and pip, and the network; nothing else.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
COMPILED := $(VENV)/.compiled
# What the environment and the compiled modules were made of stands in their stamps. Ages would not tell: archives and
# copies keep those of their files.
LOCKED := $(shell cat requirements.lock pyproject.toml forkast_streams/devstack/kafka_jars.lock | cksum)
# What the compiled modules do is decided by their sources, and how fast they do it by what they are trained with, too.
TRAINING := $(addprefix benchmarks/,training.py book_flows.py flows.py mixed_flow.py our_book.py partitions.py records.py)
SOURCES := $(strip $(shell $(or $(wildcard $(BIN)/python),$(PYTHON)) -m forkast_streams.compiled 2>/dev/null) \
	$(shell cat setup.py $(TRAINING) | cksum))
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1

.PHONY: help setup uncompiled run test chaos simulate bench check format lock clean
.DEFAULT_GOAL := help

help: ## Show this list
	@grep -E '^[a-z]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(COMPILED) ## Install everything into .venv and fetch Kafka; does nothing when up to date

ifneq ($(shell cat $(STAMP) 2>/dev/null),$(LOCKED))
.PHONY: $(STAMP)
endif
$(STAMP):
	@rm -f $@
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || \
		{ echo "Python 3.11 is needed: install it, or name it as in 'make setup PYTHON=/path/to/python3.11'."; exit 1; }
	@echo "Making the environment in $(VENV)"
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || \
		$(PYTHON) -m venv --clear $(VENV) >/dev/null 2>&1 || \
		{ rm -rf $(VENV); echo "Python's venv module does not work here: run 'apt install python3-venv'."; exit 1; }
	@echo "Installing the packages of requirements.lock, each checked against its hash"
	@sed -n '/^uv==/,/[0-9a-f]$$/p' requirements.lock > $(VENV)/uv.lock
	@{ $(BIN)/python -m pip install --quiet --require-hashes --requirement $(VENV)/uv.lock && \
		$(BIN)/uv pip sync --quiet --compile-bytecode --python $(BIN)/python --require-hashes requirements.lock; } || \
		{ echo "uv cannot reach the packages; trying pip, which takes longer" && \
		$(BIN)/python -m pip install --quiet --require-hashes --requirement requirements.lock; }
	@FORKAST_COMPILE=0 $(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@echo "Fetching Apache Kafka, each jar checked against its hash, and recording how it starts"
	@$(BIN)/python -m forkast_streams.devstack
	@echo "$(LOCKED)" > $@

# Where there is no C compiler this says so, and the engine runs as it is.
ifneq ($(shell cat $(COMPILED) 2>/dev/null),$(SOURCES))
.PHONY: $(COMPILED)
endif
$(COMPILED): $(STAMP)
	@rm -f $@
	@echo "Compiling the engine and the keeper's books with mypyc, which takes a minute"
	@$(BIN)/python setup.py --quiet build_ext --inplace
	@echo "$(filter-out stale,$(SOURCES))" > $@
	@echo "Ready: 'make run' starts the exchange, 'make test' runs the tests"

uncompiled: ## Run the engine from its source, as is best while one works on it; 'make setup' compiles it again
	@$(BIN)/python -m forkast_streams.compiled remove
	@rm -f $(COMPILED)

run: setup ## Start the exchange with its servers
	$(BIN)/forkast up

test: setup ## Run all tests
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

chaos: setup ## Break a running exchange in every way of the fault matrix; ARGS="--only F-8 --seed 7"
	$(BIN)/python -m tests.chaos $(ARGS)

simulate: setup ## Run the whole exchange in one process under 10,000 seeds; ARGS="--runs 500 --from 1" or "--seed 7"
	$(BIN)/python -m tests.simulation $(ARGS)

bench: setup ## Measure speed and size, then write docs/benchmarks.md; ARGS="matching --quick" for one
	$(BIN)/forkast bench $(or $(ARGS),all --report)

check: setup ## Lint, check formatting, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup ## Format the code and sort its imports
	$(BIN)/ruff check --fix --select I .
	$(BIN)/ruff format .

lock: setup ## Resolve the versions in pyproject.toml into requirements.lock
	$(BIN)/uv pip compile --python $(BIN)/python --extra dev --generate-hashes \
		--no-header --no-annotate --no-emit-index-url --quiet --output-file requirements.lock pyproject.toml

clean: ## Remove the environment and all that setup and tools have left; data/ stays
	-@$(or $(wildcard $(BIN)/python),$(PYTHON)) -m forkast_streams.compiled remove
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
