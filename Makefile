# `make demo` and `make test` need Python 3.11 or newer and nothing else; README.md lists the same as plain commands.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

.PHONY: demo test faults assets

demo: $(VENV)/.installed
	$(RUN) vae_trainer.py
	$(RUN) extract_latentvec.py
	$(RUN) f2p_trainer.py
	$(RUN) -m benchmarks.demo

test: $(VENV)/.installed
	$(RUN) -m pytest -q -p no:cacheprovider -n 2 --dist worksteal tests

$(VENV)/.installed: requirements.txt requirements-dev.txt
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Python 3.11 or newer is needed; this is ' + sys.version)"
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

# The pictures that the README shows.
assets: $(VENV)/.installed
	$(RUN) -m benchmarks.architecture --output assets/architecture.png
	$(RUN) -m datasets.creator sheet --output assets/sliders.jpg
	$(RUN) -m datasets.creator random --count 42 --size 112 --seed 9 --output assets/characters.jpg

# The long form of tests/test_faults.py: a hundred kills of each script, a thousand broken pictures; an hour and more.
# It prints the table that benchmarks/FAULTS.md carries.
faults: $(VENV)/.installed
	rm -f .faults.tmp
	FAULTS=long FAULTS_TABLE=$(CURDIR)/.faults.tmp $(RUN) -m pytest -q -p no:cacheprovider -n 2 --dist load tests/test_faults.py
	sort .faults.tmp
