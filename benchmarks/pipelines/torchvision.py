"""torchvision's v2 transforms on Pillow's images in a DataLoader. Needs an environment of its own."""

import random

import numpy as np
import torch
from PIL import Image

from benchmarks import torchvision_import  # noqa: F401 (before torchvision)
from benchmarks.pipelines import IGNORE, MEAN_PIXEL, PREFETCHED_BATCHES, SCALES

import torchvision  # isort: skip
from torchvision import tv_tensors  # isort: skip
from torchvision.transforms import v2  # isort: skip

MEAN = [round(value) for value in MEAN_PIXEL]


class RandomScale(v2.Transform):
    """By a factor of the image's own size, as this work asks for; v2.RandomResize draws an absolute size."""

    def make_params(self, flat_inputs):
        height, width = v2.query_size(flat_inputs)
        scale = random.uniform(*SCALES)
        return {"size": [round(height * scale), round(width * scale)]}

    def transform(self, inpt, params):
        return v2.functional.resize(inpt, params["size"], antialias=False)


class RandomCrop(v2.Transform):
    """Pads at the bottom and right after it has cropped; v2.RandomCrop pads all round before, which is more work."""

    def __init__(self, size):
        super().__init__()
        self.size = size

    def make_params(self, flat_inputs):
        height, width = v2.query_size(flat_inputs)
        kept = min(height, self.size), min(width, self.size)
        return {"corner": (random.randint(0, height - kept[0]), random.randint(0, width - kept[1])), "kept": kept}

    def transform(self, inpt, params):
        height, width = params["kept"]
        crop = v2.functional.crop(inpt, *params["corner"], height, width)
        if (height, width) == (self.size, self.size):
            return crop
        fill = IGNORE if isinstance(inpt, tv_tensors.Mask) else MEAN
        return v2.functional.pad(crop, [0, 0, self.size - width, self.size - height], fill=fill)


class VOC(torch.utils.data.Dataset):
    def __init__(self, work):
        self.work = work
        self.transform = v2.Compose([RandomScale(), RandomCrop(work.crop), v2.RandomHorizontalFlip()])

    def __len__(self):
        return len(self.work.images)

    def __getitem__(self, index):
        image = tv_tensors.Image(v2.functional.pil_to_tensor(Image.open(self.work.images[index]).convert("RGB")))
        mask = tv_tensors.Mask(torch.from_numpy(np.array(Image.open(self.work.masks[index]))))
        image, mask = self.transform(image, mask)
        if self.work.floats:
            image = image.to(torch.float32).div_(127.5).sub_(1)
        return image.as_subclass(torch.Tensor), mask.as_subclass(torch.Tensor)


def build(work):
    dataset = VOC(work)
    # One sampler without end, so that the workers do not stand still between two epochs.
    endless = torch.utils.data.RandomSampler(dataset, num_samples=len(dataset) * 10_000)
    loader = torch.utils.data.DataLoader(
        dataset, work.batch, sampler=endless, num_workers=work.workers, prefetch_factor=PREFETCHED_BATCHES
    )
    # The images are stored channels last already; the labels are widened here, so that fewer bytes change process.
    batches = ((images.permute(0, 2, 3, 1).numpy(), labels.int().numpy()) for images, labels in loader)
    return batches, f"torchvision {torchvision.__version__}, PyTorch {torch.__version__}"
