# `make demo` and `make test` need Python 3.11 or newer and nothing else; README.md lists the same as plain commands.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

.PHONY: demo test faults assets clean-demo

demo: $(VENV)/.installed
	$(RUN) vae_trainer.py
	$(RUN) extract_latentvec.py
	$(RUN) f2p_trainer.py
	$(RUN) -m benchmarks.demo

test: $(VENV)/.installed
	$(RUN) -m pytest -q -p no:cacheprovider tests

$(VENV)/.installed: requirements.txt requirements-dev.txt
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Python 3.11 or newer is needed; this is ' + sys.version)"
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@
