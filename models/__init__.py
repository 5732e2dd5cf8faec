"""Networks, names, initialization."""

import os

# Before TensorFlow is imported: by itself it turns oneDNN on only where a processor has AVX-512 or the like. Without it
# a CPU dilates by detours, and a training step of ResNet-50 takes four times as long. What the user says is kept.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
