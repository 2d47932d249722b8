"""Batch norm inside the convolution in front of it, for networks that only predict.

In evaluation mode a batch norm is a factor and an offset per channel,

    y = s (W * x) + (b - m s),      s = w / sqrt(v + eps)

so a convolution with the weight ``s W`` and the bias ``b - m s`` gives the same up to rounding, without reading
and writing the map once more. In ABN ``|w| + eps`` stands for ``w``; its leaky ReLU stays, on the map in place.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from mlcil.models.inplace_abn import ABN, EPS, positive_part_of
from mlcil.models.network import IncrementalNetwork, LastMaps
from mlcil.models.resnet import ConvNorm
from mlcil.models.tresnet import ConvABN, Shortcut

#: modules that apply their norm to the output of their ``conv``, and the norm's name
PAIRS: dict[type[nn.Module], str] = {ConvABN: "abn", Shortcut: "abn", ConvNorm: "norm"}


def can_fold(network: IncrementalNetwork) -> bool:
    """Whether :func:`folded` would do more than copy: fold something, or leave ``torch.compile`` behind."""
    compiled = network.backbone._compiled_call_impl is not None
    return compiled or any(type(module) in PAIRS for module in network.backbone.modules())


def folded(network: IncrementalNetwork) -> IncrementalNetwork:
    """A network for predictions with the numbers of this one in evaluation mode; the head is shared.

    Batch norms of other backbones (timm's, the encoders') stay as they are.
    """
    shared = {id(network.head): network.head, id(network._last_maps): LastMaps()}
    with torch.inference_mode(False), torch.no_grad():  # tensors that are made in inference mode stay of that kind
        copied = copy.deepcopy(network, shared).eval()
        for module in copied.backbone.modules():
            name = PAIRS.get(type(module))
            if name is not None:
                fold_pair(module, name)
    return copied


def fold_pair(module: nn.Module, name: str) -> None:
    """Put the batch norm of that name into the module's ``conv``."""
    conv, norm = module.conv, getattr(module, name)
    assert isinstance(conv, nn.Conv2d)
    assert conv.bias is None
    assert norm.running_var is not None
    eps = EPS if isinstance(norm, ABN) else norm.eps
    weight = positive_part_of(norm.weight) + EPS if isinstance(norm, ABN) else norm.weight
    factor_C: Tensor = weight / torch.sqrt(norm.running_var + eps)
    conv.weight.mul_(factor_C.view(-1, 1, 1, 1))
    conv.bias = nn.Parameter(norm.bias - norm.running_mean * factor_C, requires_grad=False)
    slope = norm.slope if isinstance(norm, ABN) else None
    setattr(module, name, nn.Identity() if slope is None else nn.LeakyReLU(slope, inplace=True))
