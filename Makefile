# make demo: environment, CLIP, VLM, samples.    make test: environment and tests.
# make quick: what one runs after each edit.     make lint: layout and likely bugs.
# Running any of them twice does no harm; a demo that was stopped goes on.
PYTHON := .venv/bin/python

demo: .venv/ready
	test -f runs/clip/metrics.json || $(PYTHON) train_clip.py $(if $(wildcard runs/clip/last.pt),--resume)
	test -f runs/vlm-qformer/metrics.json || $(PYTHON) train_vlm.py --projector qformer $(if $(wildcard runs/vlm-qformer/last.pt),--resume)
	$(PYTHON) sample.py
	@echo "open runs/vlm-qformer/sample.png"

test: .venv/ready
	$(PYTHON) -m pytest -q -n auto --dist loadfile -m "not slow"

quick: .venv/ready
	$(PYTHON) -m pytest -q -n auto --dist loadfile -m quick

lint: .venv/ready
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .

.venv/ready: requirements.txt
	python3 -m venv .venv
	$(PYTHON) -m pip install -q -r requirements.txt
	touch .venv/ready

.PHONY: demo test quick lint
