# make demo   the main job, end to end, on a small data set drawn here
# make test   the test suite          make lint   ruff
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO ?= demo

.PHONY: demo test lint clean

# Draw shapes, pre-train a small ResNet to tell them apart, fine-tune DeepLab v3 from its checkpoint, measure, look.
# Run again, it goes on where it stopped.
demo: $(VENV)/run.stamp
	$(BIN)/python prepare_data.py sample --out $(DEMO)/shapes --kind folder --train 96 --val 16
	$(BIN)/python prepare_data.py sample --out $(DEMO)/voc --train 96 --val 24
	$(BIN)/python train_cls.py --ckpt none --model resnet_v2_18 --data $(DEMO)/shapes --image-size 64 \
		--steps 240 --learning-rate 0.02 --eval-every 120 --save-every 120 --run-dir $(DEMO)/pretrained
	$(BIN)/python train_seg.py --ckpt $(DEMO)/pretrained --data $(DEMO)/voc --crop-size 97 --eval-size 129 \
		--steps 300 --batch-size 8 --eval-every 150 --save-every 150 --run-dir $(DEMO)/segmentation
	$(BIN)/python eval_seg.py --ckpt $(DEMO)/segmentation --data $(DEMO)/voc --sheet $(DEMO)/predictions.png

test: $(VENV)/dev.stamp
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/run.stamp: requirements.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/dev.stamp: requirements-dev.txt requirements-export.txt $(VENV)/run.stamp
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps "tf_keras==2.21.*"
	touch $@

clean:
	rm -rf $(VENV) demo
