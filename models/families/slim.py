"""TF-Slim's classifiers, with or without their logits: what all the others begin from."""

from models.families.family import Family

FAMILY = Family(name="slim", title="", tells=lambda shapes, backbone: True)
