# The commands of CONTRIBUTING.md, in the environment that the other commands use.
.PHONY: format check test demo matrix licences sbom
python = set -e; REQUIREMENTS=requirements-dev.txt; . scripts/env.sh; "$$PYTHON" -m

format:
	@$(python) ruff check --fix .; "$$PYTHON" -m ruff format .

check:
	@$(python) ruff check .; "$$PYTHON" -m ruff format --check .; "$$PYTHON" -m mypy

test:
	@sh run_tests.sh $(ARGS)

demo:
	@sh train_mlcil_coco.sh --demo

matrix:
	@ARGS="$(ARGS)" sh scripts/matrix.sh $(LINE)

licences:
	@$(python) piplicenses --from=mixed --order=license --with-urls

sbom:
	@$(python) cyclonedx_py environment --pyproject pyproject.toml --output-file sbom.cdx.json "$$PYTHON"; echo sbom.cdx.json
