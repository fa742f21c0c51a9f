# Everything happens in .venv, which the first target makes and the others reuse.
# On a machine whose python3 is older than 3.11:  make course PYTHON=python3.12
PYTHON ?= python3
PY := .venv/bin/python
STAMP := .venv/.installed

.PHONY: help env course test verify bench lint format notebooks student instructor clean

help:
	@echo "make course     the environment, then JupyterLab on the notebooks"
	@echo "make test       the environment, then every test and every notebook"
	@echo "make verify     the scoreboard: each log-determinant against finite differences"
	@echo "make bench      speed, memory and exactness beside other libraries, into results/speed"
	@echo "make lint       style and formatting, without changing anything"
	@echo "make format     put style and formatting right"
	@echo "make notebooks  run all notebooks and store their outputs"
	@echo "make student    a zip of the course without solutions, in dist/"
	@echo "make instructor the same with all solutions filled in and run"
	@echo "make env        the environment alone"
	@echo "make clean      remove the environment"

env: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
	  { echo "$(PYTHON) is `$(PYTHON) --version 2>&1`; needed: Python 3.11 to 3.13, for instance: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@test -x $(PY) || $(PYTHON) -m venv .venv || \
	  { echo "no virtual environment could be made; on Debian and Ubuntu: apt install python3-venv"; rm -rf .venv; exit 1; }
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[torch,course,dev]"
	@touch $(STAMP)

# No news, no update check, no question about them: JupyterLab starts and runs without a network.
course: $(STAMP)
	$(PY) -m jupyterlab --LabApp.news_url=None \
	  --LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate \
	  --LabApp.app_settings_dir=notebooks/course/jupyterlab $(JUPYTER) \
	  --ServerApp.root_dir=notebooks --LabApp.default_url=/lab/tree/00_start_here.ipynb

# No cell of a notebook takes minutes; one that has not ended after ten hangs.
test: $(STAMP)
	$(PY) -m pytest
	$(PY) -m pytest -o addopts="" --nbval --nbval-cell-timeout 600 notebooks/*.ipynb

verify: $(STAMP)
	$(PY) -m reference

# BENCH="--depth 8 --minutes 5" and the like: options of python -m benchmarks.
bench: $(STAMP)
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[peers]"
	$(PY) -m benchmarks $(BENCH)

lint: $(STAMP)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

format: $(STAMP)
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

notebooks: $(STAMP)
	$(PY) -m tools.notebooks run

student instructor: $(STAMP)
	$(PY) -m tools.handout $@

clean:
	rm -rf .venv
