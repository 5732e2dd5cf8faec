# make demo       the main job, end to end, on a small data set drawn here
# make test       the test suite
# make test-min   a quick part of it with the lowest versions that requirements.txt allows
# make lint       ruff, the types, and which room may import which
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO ?= demo

# What shows that the lowest versions work: reading and writing of images, checkpoints and runs, and short trainings.
QUICK := tests/data tests/engine tests/models/test_checkpoint.py tests/models/test_weight_init.py \
	tests/inference/test_predictor.py tests/programs/test_train_cls.py

.PHONY: demo test test-min lint clean

# Draw shapes, pre-train a small ResNet to tell them apart, fine-tune DeepLab v3 from its checkpoint, measure, look.
# Run again, it goes on where it stopped.
demo: $(VENV)/run.stamp
	$(BIN)/python prepare_data.py sample --out $(DEMO)/shapes --kind folder --train 400 --val 24
	$(BIN)/python prepare_data.py sample --out $(DEMO)/voc --train 400 --val 48
	$(BIN)/python train_cls.py --ckpt none --model resnet_v2_18 --data $(DEMO)/shapes --image-size 64 \
		--steps 240 --learning-rate 0.02 --eval-every 120 --save-every 120 --run-dir $(DEMO)/pretrained
	$(BIN)/python train_seg.py --ckpt $(DEMO)/pretrained --data $(DEMO)/voc --crop-size 97 --eval-size 129 \
		--steps 180 --learning-rate 0.03 --scale-range 0.75,1.25 --eval-every 90 --save-every 90 \
		--run-dir $(DEMO)/segmentation
	$(BIN)/python eval_seg.py --ckpt $(DEMO)/segmentation --data $(DEMO)/voc --sheet $(DEMO)/predictions.png
	@echo
	@echo "pictures: $(DEMO)/predictions.png"
	@echo "reports:  $(DEMO)/segmentation/report.html  $(DEMO)/pretrained/report.html"

test: $(VENV)/dev.stamp
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-min: $(VENV)-min/run.stamp
	$(VENV)-min/bin/python -m pytest $(QUICK)

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --no-cache

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/run.stamp: requirements.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/dev.stamp: requirements-dev.txt requirements-export.txt $(VENV)/run.stamp
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt -r requirements-dev.txt \
		-r requirements-export.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps "tf_keras==2.21.*"
	touch $@

# numpy>=2.1,<3 becomes numpy==2.1
$(VENV)-min/run.stamp: requirements.txt requirements-dev.txt
	$(PYTHON) -m venv $(VENV)-min
	sed 's/>=\([^,]*\),.*/==\1/' requirements.txt > $(VENV)-min/requirements.txt
	$(VENV)-min/bin/python -m pip install --quiet --disable-pip-version-check -r $(VENV)-min/requirements.txt
	grep -E '^(pytest|hypothesis)[>=]' requirements-dev.txt > $(VENV)-min/requirements-dev.txt
	$(VENV)-min/bin/python -m pip install --quiet --disable-pip-version-check -r $(VENV)-min/requirements-dev.txt
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-min demo
