"""torchvision's own deeplabv3_resnet50: compiled, channels_last. Needs an environment of its own.

As published it computes at output stride 8. `stride=16` dilates only the last stage of its backbone, for a comparison
at the same stride; its ASPP then has the rates of that stride, 6, 12 and 18.
"""

import torch
from torch.nn import functional as F

from benchmarks import torchvision_import  # noqa: F401 (before torchvision)
from benchmarks.contestants import CLASSES, IGNORE, LEARNING_RATE, MOMENTUM, WEIGHT_DECAY

import torchvision  # isort: skip
from torchvision.models.segmentation import deeplabv3  # isort: skip

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def device():
    return torch.cuda.get_device_name() if DEVICE == "cuda" else "cpu"


def _network(stride):
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True
    if stride == 8:
        model = deeplabv3.deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=CLASSES)
    else:
        backbone = torchvision.models.resnet50(weights=None, replace_stride_with_dilation=[False, False, True])
        features = torchvision.models._utils.IntermediateLayerGetter(backbone, {"layer4": "out"})
        model = deeplabv3.DeepLabV3(features, deeplabv3.DeepLabHead(2048, CLASSES, atrous_rates=(6, 12, 18)))
    return model.to(DEVICE, memory_format=torch.channels_last)


def _batch(images):
    x = torch.from_numpy(images).permute(0, 3, 1, 2)
    return x.to(DEVICE).contiguous(memory_format=torch.channels_last)


def _parameters(model):
    return sum(p.numel() for p in model.parameters())


def _wait():
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def trainer(images, labels, bfloat16, stride):
    """→ (run, parameters, version), where run(steps) trains so many steps on the batch and returns the last loss."""
    model = _network(stride).train()
    optimizer = torch.optim.SGD(model.parameters(), LEARNING_RATE, MOMENTUM, weight_decay=WEIGHT_DECAY)
    x, y = _batch(images), torch.from_numpy(labels).long().to(DEVICE)
    compiled = torch.compile(model)

    def run(steps):
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(DEVICE, torch.bfloat16, enabled=bfloat16):
                logits = compiled(x)["out"]
            loss = F.cross_entropy(logits.float(), y, ignore_index=IGNORE)
            loss.backward()
            optimizer.step()
        _wait()
        return loss.item()

    return run, _parameters(model), f"torch {torch.__version__}, torchvision {torchvision.__version__}"


def predictor(images, bfloat16, stride):
    """→ (run, parameters, version), where run(times) predicts the labels of the batch so often."""
    dtype = torch.bfloat16 if bfloat16 else torch.float32
    model = _network(stride).eval().to(dtype)
    x = _batch(images).to(dtype)
    compiled = torch.compile(lambda x: model(x)["out"].argmax(1).to(torch.uint8))

    @torch.inference_mode()
    def run(times):
        for _ in range(times):
            found = compiled(x)
        _wait()
        return int(found[0, 0, 0])

    return run, _parameters(model), f"torch {torch.__version__}, torchvision {torchvision.__version__}"
