# make demo: install and run the whole job.  make test: install what tests need and run them.  make docs: build the site.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LINKS := $(if $(PIP_FIND_LINKS),--find-links "$(PIP_FIND_LINKS)")

.PHONY: demo test test-all check audit reference docs install clean

demo: $(VENV)/installed
	$(BIN)/molt demo

# a process for each core with one thread each: small models gain nothing from more
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test: $(VENV)/installed-dev
	$(PYTEST)

test-all: $(VENV)/installed-dev
	$(PYTEST) -m ""

check: $(VENV)/installed-dev
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/pyright && $(BIN)/lint-imports

# known vulnerabilities of the installed packages, by the advisories of the package index; in an environment of its own
audit: $(VENV)/installed
	@[ -x build/audit/bin/pip-audit ] || ($(PYTHON) -m venv build/audit && build/audit/bin/pip install -q $(LINKS) pip-audit)
	@build/audit/bin/pip-audit --path "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"

# docs/settings.md, docs/cli.md and the quoted result lines, from the code and the committed results
reference: $(VENV)/installed
	$(BIN)/python -m moltlm.pipeline.reference

# broken links and anchors are errors (not with --quiet, which hides them from --strict); a page fetches nothing
docs: $(VENV)/installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

install: $(VENV)/installed

# uv where there is one (seconds), else plain pip (a minute or two)
$(VENV)/installed: pyproject.toml constraints.txt
	@if command -v uv >/dev/null; then \
	  ([ -x $(BIN)/python ] || uv venv -q --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')" $(VENV)) && \
	  uv pip install -q --python $(BIN)/python $(LINKS) -c constraints.txt -e . ; \
	else \
	  ([ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)) && \
	  $(BIN)/python -m pip install -q -c constraints.txt -e . ; \
	fi
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	@if command -v uv >/dev/null; then \
	  uv pip install -q --python $(BIN)/python $(LINKS) -c constraints.txt --group dev ; \
	else \
	  $(BIN)/python -m pip install -q --upgrade "pip>=25.1" && $(BIN)/python -m pip install -q -c constraints.txt --group dev ; \
	fi
	@touch $@

$(VENV)/installed-docs: $(VENV)/installed
	@if command -v uv >/dev/null; then \
	  uv pip install -q --python $(BIN)/python $(LINKS) -c constraints.txt --group docs ; \
	else \
	  $(BIN)/python -m pip install -q --upgrade "pip>=25.1" && $(BIN)/python -m pip install -q -c constraints.txt --group docs ; \
	fi
	@touch $@

clean:
	rm -rf $(VENV) dist build *.egg-info
