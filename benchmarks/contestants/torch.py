"""The same network in plain PyTorch: channels_last, autocast for bfloat16. Needs an environment of its own."""

import time

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.contestants import (
    CHANNELS,
    CLASSES,
    DECAY,
    EPSILON,
    IGNORE,
    LEARNING_RATE,
    MOMENTUM,
    RATES,
    WEIGHT_DECAY,
    units,
)


def _conv(inputs, outputs, size, stride=1, dilation=1, bias=False):
    return nn.Conv2d(inputs, outputs, size, stride, dilation * (size // 2), dilation, bias=bias)


def _norm(channels):
    return nn.Sequential(nn.BatchNorm2d(channels, EPSILON, 1 - DECAY), nn.ReLU(inplace=True))


def _conv_norm(inputs, outputs, size, stride=1, dilation=1):
    return nn.Sequential(_conv(inputs, outputs, size, stride, dilation), _norm(outputs))


class Bottleneck(nn.Module):
    def __init__(self, inputs, width, stride, dilation):
        super().__init__()
        self.stride = stride
        self.preact = _norm(inputs)
        self.shortcut = _conv(inputs, 4 * width, 1, stride, bias=True) if inputs != 4 * width else None
        self.residual = nn.Sequential(
            _conv_norm(inputs, width, 1),
            _conv_norm(width, width, 3, stride, dilation),
            _conv(width, 4 * width, 1, bias=True),
        )

    def forward(self, x):
        preact = self.preact(x)
        shortcut = self.shortcut(preact) if self.shortcut else x[:, :, :: self.stride, :: self.stride]
        return shortcut + self.residual(preact)


class DeepLab(nn.Module):
    def __init__(self):
        super().__init__()
        layers, channels = [_conv(3, 64, 7, 2, bias=True), nn.MaxPool2d(3, 2, 1)], 64
        for _, width, stride, dilation in units():
            layers.append(Bottleneck(channels, width, stride, dilation))
            channels = 4 * width
        self.backbone = nn.Sequential(*layers, _norm(channels))
        self.pooling = _conv_norm(channels, CHANNELS, 1)
        self.aspp = nn.ModuleList(_conv_norm(channels, CHANNELS, 3, dilation=rate) for rate in RATES)
        self.aspp.insert(0, _conv_norm(channels, CHANNELS, 1))
        self.head = nn.Sequential(_conv_norm(5 * CHANNELS, CHANNELS, 1), _conv(CHANNELS, CLASSES, 1, bias=True))

    def forward(self, images):
        x = self.backbone(images)
        pooled = self.pooling(x.mean((2, 3), keepdim=True)).expand(-1, -1, *x.shape[2:])
        x = self.head(torch.cat([pooled, *(branch(x) for branch in self.aspp)], 1))
        return F.interpolate(x.float(), images.shape[2:], mode="bilinear", align_corners=True)


def _network():
    torch.manual_seed(0)
    model = DeepLab().to(memory_format=torch.channels_last)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    return model


def build(images, labels, bfloat16):
    model = _network().train()
    kernels = [p for p in model.parameters() if p.ndim == 4]
    others = [p for p in model.parameters() if p.ndim != 4]
    groups = [{"params": kernels, "weight_decay": WEIGHT_DECAY}, {"params": others}]
    optimizer = torch.optim.SGD(groups, LEARNING_RATE, MOMENTUM)
    x = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
    y = torch.from_numpy(labels).long()

    def step():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            logits = model(x)
        loss = F.cross_entropy(logits, y, ignore_index=IGNORE)
        loss.backward()
        optimizer.step()
        return loss.item()

    parameters = sum(p.numel() for p in model.parameters())
    return step, parameters, f"torch {torch.__version__}"


def predictor(bfloat16, compiled=False, autocast=False):
    """→ (labels, parameters, version), where labels(image) is uint8 (H, W) of the uint8 RGB (H, W, 3) `image`.

    Args:
        bfloat16: compute in it, with kernels that were rounded to it once; or, with `autocast`, with float32 kernels.
    """
    model = _network().eval()
    dtype = torch.bfloat16 if bfloat16 and not autocast else torch.float32
    model = model.to(dtype)

    def predict(image):
        x = image.permute(2, 0, 1)[None].to(dtype, memory_format=torch.channels_last) / 127.5 - 1
        return model(x).argmax(1)[0].to(torch.uint8)

    if compiled:
        predict = torch.compile(predict)

    @torch.inference_mode()
    def labels(image):
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16 and autocast):
            return predict(torch.from_numpy(image)).numpy()

    return labels, sum(p.numel() for p in model.parameters()), f"torch {torch.__version__}"


def matmul_seconds(n, bfloat16):
    a = torch.randn(n, n).to(torch.bfloat16 if bfloat16 else torch.float32)
    start = time.perf_counter()
    float((a @ a)[0, 0])
    return time.perf_counter() - start
