"""The families of public checkpoints, each told from its names. To add one: an entry here, and a golden file."""

from models.families import leimao, nanqingd, official, own, rishizek, slim, sthalles

# In the order in which they are asked: own and official share names, and all that is left is slim's.
FAMILIES = tuple(module.FAMILY for module in (rishizek, nanqingd, sthalles, leimao, own, official, slim))
