# Every target sets up what it needs; run twice, the second time costs nothing.
.PHONY: setup demo test test-kvm lint schemas bench lock clean

BIN := .venv/bin
# Without byte code every process compiles the SDK anew, which takes seconds.
unexport PYTHONDONTWRITEBYTECODE

setup:
	@.ci/setup

demo: setup  ## run the main job: the quickstart recipe on the local backend, no key and no network
	@$(BIN)/kaos-runner recipes/quickstart.yaml

test: setup lint  ## the whole test suite
	@$(BIN)/python -m pytest -n 2 --dist loadscope

test-kvm: setup  ## the conformance suite in a real BoxLite micro-VM, where this machine boots one
	@$(BIN)/python -m pytest tests/conformance/test_boxlite_kvm.py --live -q -rN

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

schemas: setup  ## regenerate schemas/ and docs/recipe.md from the types
	@$(BIN)/python -m kaos_runner.recipe.generate

bench: setup  ## print the benchmarks; nothing is asserted
	@$(BIN)/python -m tests.benchmarks $(NAMES)

lock: setup  ## resolve requirements.lock anew
	@.tools/uv/bin/uv pip compile --generate-hashes --no-header --no-emit-index-url --universal --python-version 3.13 \
	  --group dev pyproject.toml -o requirements.lock

clean:
	rm -rf .venv .tools .pytest_cache .mypy_cache .ruff_cache build dist
