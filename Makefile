# `make demo`, `make train`, `make test` and `make check` need Python 3.11 or newer and nothing else; README.md lists them
# as plain commands.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

.PHONY: demo train test check faults assets

# The pretrained run on a photo and on held-out faces, in seconds; then both stages on a small data set, in minutes, and
# one picture of both runs.
demo: $(VENV)/.installed
	$(RUN) predict.py assets/photos/portrait.jpg
	$(RUN) -m benchmarks.demo
	$(RUN) vae_trainer.py --config configs/quick.toml
	$(RUN) extract_latentvec.py --config configs/quick.toml
	$(RUN) f2p_trainer.py --config configs/quick.toml
	$(RUN) -m benchmarks.demo --run assets/pretrained --run runs/quick --photo assets/photos/portrait.jpg

# The default run.
train: $(VENV)/.installed
	$(RUN) vae_trainer.py
	$(RUN) extract_latentvec.py
	$(RUN) f2p_trainer.py
	$(RUN) -m benchmarks.demo --run runs/creator

test: check
	$(RUN) -m pytest -n 2 --dist worksteal

# Style, types: what pyproject.toml asks for.
check: $(VENV)/.installed
	$(RUN) -m ruff check
	$(RUN) -m ruff format --check
	$(RUN) -m mypy

$(VENV)/.installed: requirements.txt requirements-dev.txt
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Python 3.11 or newer is needed; this is ' + sys.version)"
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

# The pictures that README.md shows; one is made with the run of configs/creator_photo.toml and its data set. people.jpg
# is made with the five runs of docs/results.md#people.
assets: $(VENV)/.installed
	$(RUN) predict.py assets/photos/portrait.jpg
	$(RUN) -c "from PIL import Image; \
		Image.open('predictions/portrait.png').convert('RGB').save('assets/prediction.jpg', quality=88)"
	$(RUN) -m benchmarks.demo --picture assets/demo.jpg
	$(RUN) -m benchmarks.architecture --run runs/creator_photo --output assets/architecture.png
	$(RUN) -m games sheet --output assets/sliders.jpg
	$(RUN) -m games random --count 42 --size 112 --seed 9 --output assets/characters.jpg

# The long form of tests/test_faults.py: thirty kills of each script, a thousand broken pictures.
# It prints the table that docs/faults.md carries.
faults: $(VENV)/.installed
	rm -f .faults.tmp
	FAULTS=long FAULTS_TABLE=$(CURDIR)/.faults.tmp $(RUN) -m pytest -n 2 --dist load tests/test_faults.py
	sort .faults.tmp
