"""Makes `import torchvision` work beside a CPU build of PyTorch too: import this module first.

torchvision's wheel is built for CUDA. Where PyTorch is not, it imports once the names of its operators exist.
"""

import torch

if torch.version.cuda is None:
    _OPERATORS = torch.library.Library("torchvision", "DEF")
    for _name in ("nms", "qnms", "roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool", "deform_conv2d"):
        _OPERATORS.define(f"{_name}(Tensor x) -> Tensor")
    for _name in ("roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool", "deform_conv2d"):
        _OPERATORS.define(f"_{_name}_backward(Tensor x) -> Tensor")
