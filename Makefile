# `make demo` and `make test` work as the first command on a fresh clone: Python 3.11+ and make suffice.
# An environment that is active is used; else .venv is made, on top of a torch that Python already has.
PYTHON ?= python3
VENV ?= $(if $(VIRTUAL_ENV),$(VIRTUAL_ENV),.venv)
BIN := $(VENV)/bin
HAS_TORCH = $(PYTHON) -c "import importlib.util as u, sys; sys.exit(u.find_spec('torch') is None)"

.PHONY: setup demo train-demo test test-slow test-browser page check format docs results tables bench ablation
.PHONY: weights suggest-results small-objects mistakes-results passes-results dev-results recipe-results pictures robustness scale

setup: $(VENV)/.kshot-ready

$(VENV)/.kshot-ready: EXTRAS = dev

# What the demo and the page need; the rest is for those who work on kshot.
$(VENV)/.kshot-demo: EXTRAS = demo,serve

$(VENV)/.kshot-ready $(VENV)/.kshot-demo: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $$($(HAS_TORCH) && echo --system-site-packages) $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --editable ".[$(EXTRAS)]"
	touch $@

demo: $(if $(wildcard $(VENV)/.kshot-ready),setup,$(VENV)/.kshot-demo)
	$(BIN)/python demo/demo.py

# make train-demo [VOC=DIR]: train the whole method in minutes, on synthetic images or on VOC 2012.
train-demo: setup
	$(BIN)/python demo/train_demo.py $(if $(VOC),--voc $(VOC))

# make ablation COCO_MINI=DIR VOC=DIR: train and score what is missing of the ablation, hours; then its table.
ablation: setup
	$(BIN)/python benchmarks/ablation.py --coco-mini $(COCO_MINI) --voc $(VOC)
	$(BIN)/kshot table ablation benchmarks/results/ablation_*.json --into docs/training.md

# make weights VOC=DIR COCO_MINI=DIR: train what ships on what the ablation has made, put it into the package, score it.
weights: setup
	$(BIN)/python benchmarks/shipped.py --voc $(VOC) --coco-mini $(COCO_MINI)
	$(BIN)/kshot table list benchmarks/results/shipped_*.json --into docs/training.md

# make bench: kshot against the plain computation, an hour on a machine that does nothing else; then the table.
bench: setup
	$(BIN)/python benchmarks/speed.py --into docs/performance.md --short-into README.md
	$(BIN)/python benchmarks/parts.py --into docs/performance.md

# The site, into site/: a warning is an error, and so is one in a notebook.
docs: setup
	$(BIN)/typer kshot.cli.main utils docs --name kshot --title "The command" --output docs/command.md
	$(BIN)/mkdocs build --strict
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m notebook tests/test_notebooks.py

# The README's picture, and that of docs/failures.md.
pictures: setup
	$(BIN)/python demo/demo.py coins eye gland motorcycle person --out demo/out/readme.jpg
	cp demo/out/readme.jpg docs/demo.jpg
	$(BIN)/python demo/failures.py docs/failures.jpg

# make results COCO_MINI=DIR VOC=DIR: score what has no result file yet, then the table and charts in the documents.
results: setup
	$(BIN)/python benchmarks/first_numbers.py --coco-mini $(COCO_MINI) --voc $(VOC)
	$(MAKE) tables

# make suggest-results COCO_MINI=DIR VOC=DIR: whether suggested supports beat random ones; ten minutes.
suggest-results: setup
	$(BIN)/python benchmarks/suggest.py --coco-mini $(COCO_MINI) --voc $(VOC) --into docs/suggest.md

# make small-objects COCO_MINI=DIR: whether tiles find small objects better; an hour or two, and a stopped run goes on.
small-objects: setup
	$(BIN)/python benchmarks/small_objects.py --coco-mini $(COCO_MINI) --into docs/images.md

# make mistakes-results COCO_MINI=DIR: what negatives are worth, and a look at one's own support; ten minutes.
mistakes-results: setup
	$(BIN)/python benchmarks/negatives.py --coco-mini $(COCO_MINI) --into docs/mistakes.md
	$(BIN)/python benchmarks/self_check.py --coco-mini $(COCO_MINI) --into docs/mistakes.md

# make passes-results VOC=DIR COCO_MINI=DIR: which pass of two-pass is better at what; a quarter of an hour.
passes-results: setup
	$(BIN)/python benchmarks/passes.py --voc $(VOC) --coco-mini $(COCO_MINI) --into docs/training.md

# make dev-results TASKS=DIR VOC_DEV=DIR: models and peers on many small tasks; hours, and a stopped run goes on.
dev-results: setup
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/dev_suite.py --tasks $(TASKS) --voc-dev $(VOC_DEV) \
		--into README.md docs/benchmarks.md

# make recipe-results VOC=DIR VOC_DEV=DIR TASKS=DIR COCO_MINI=DIR CLOTHING=DIR: what each part of the recipe is worth.
recipe-results: setup
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/recipe.py --voc $(VOC) --voc-dev $(VOC_DEV) --tasks $(TASKS) \
		--extra-data coco-mini-60=$(COCO_MINI) --extra-data $(CLOTHING)

# make robustness [ROWS="NAME ..."]: broken files, full disks, killed processes, minutes; then the table.
robustness: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.robustness $(ROWS) --into docs/robustness.md

# make scale: whether shared and killed runs end as one run does, and what images cost; ten minutes, alone.
scale: setup
	$(BIN)/python benchmarks/scale.py --count 2000 --into docs/scale.md

tables: setup
	$(BIN)/kshot table list benchmarks/results/prototype_*.json --into docs/benchmarks.md
	$(BIN)/kshot figure discriminability benchmarks/results/discriminability_*.json --out docs/discriminability.png
	$(BIN)/kshot figure classes benchmarks/results/prototype_*_coco-mini-60_1shot.json --out docs/classes.png

# One process a core, each with one thread: many threads for such small networks wait for one another. Each file runs in
# one process, since its tests share what they train. OpenVINO has a process of its own: a worker in which it ran beside
# onnxruntime, GDAL and others was once seen to crash.
test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile -m "not slow and not browser and not openvino and not notebook"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "openvino and not slow"

test-slow: setup
	$(BIN)/python -m pytest -m slow

# Needs a Chromium: `apt-get install chromium`, or CHROMIUM=its path.
test-browser: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m browser

# The page's examples, of scikit-image's photographs, and its picture in the documents; needs a Chromium too.
page: setup
	$(BIN)/python demo/page_examples.py
	$(BIN)/python demo/page_screenshot.py docs/serve.jpg

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict src

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
