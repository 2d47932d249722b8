"""Backbones by name: TResNet-M/L/XL, the single-label papers' ResNets and the encoders of DKT and DAFormer of our own,
``onnx`` for the graph of a file, every other name from timm.

A backbone maps images (B, 3, H, W) in [0, 1] to a list of feature maps; the last one feeds the head. It has
``out_channels`` and ``grid(image_size)``. Models that want normalised input get it inside their wrapper, so
that all transforms deal in [0, 1].
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mlcil.models import resnet
from mlcil.models.onnx_backbone import ONNX, OnnxBackbone
from mlcil.models.tresnet import VARIANTS, TResNet
from mlcil.models.vision_transformer import DAFormerEncoder, DKTEncoder

#: encoders that come with a method
ENCODERS: dict[str, Any] = {"dkt": DKTEncoder, "daformer": DAFormerEncoder}

#: names of our own backbones
OWN = ("tresnet", *VARIANTS, *resnet.VARIANTS, *ENCODERS)


def check_name(name: str) -> None:
    """Refuse a name that no backbone has.

    Raises:
        ValueError: neither one of our own nor a timm model (the near names are suggested).
    """
    if name in (*OWN, ONNX):
        return
    import timm  # heavy: only when asked for

    if not timm.is_model(name):
        near = difflib.get_close_matches(name, [*OWN, *timm.list_models()], 3)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        own = ", ".join(OWN)
        raise ValueError(f"backbone {name!r} is neither one of {own} nor a timm model nor a file.onnx{hint}")


class TimmBackbone(nn.Module):
    """Any timm model as a trunk: its last feature map (B, C, h, w).

    Convolutional models give their map before pooling; vision transformers give their patch tokens (prefix
    tokens left out) laid out as a map. Images in [0, 1] are normalised with the model's own mean and std.

    Args:
        name: a timm model name, such as ``resnet18`` or ``tf_efficientnet_lite0``.
        image_size: side of the square images in pixels; transformers are built for it.
        mean, std: normalisation per channel; ``None`` takes timm's for the model.
        trunk: further arguments of :func:`timm.create_model`, such as ``dict(depth=4, embed_dim=96)`` of a smaller
            vision transformer.

    Attributes:
        every_block: give the maps in front of every block too, see :func:`give_every_block`.

    Raises:
        ValueError: timm has no such model (the near names are suggested).
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        name: str,
        image_size: int = 224,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        trunk: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        check_name(name)
        import timm  # heavy: only when asked for

        self.every_block = False
        options: dict[str, Any] = {"pretrained": False, "num_classes": 0, "global_pool": "", **(trunk or {})}
        try:
            self.trunk = timm.create_model(name, img_size=image_size, **options)
        except TypeError:  # convolutional models take any size and know no such option
            self.trunk = timm.create_model(name, **options)
        usual = self.trunk.pretrained_cfg
        self.register_buffer("mean", torch.tensor(mean or usual["mean"]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std or usual["std"]).view(1, 3, 1, 1), persistent=False)
        self.middle: int | None = None  # number of the stage whose map is given before the last one
        self.image_size = image_size
        with torch.no_grad():
            training = self.trunk.training
            last = self.eval()(torch.zeros(1, 3, image_size, image_size))[-1]
            self.train(training)
        self.out_channels = last.shape[1]

    def give_middle(self) -> int | None:
        """Give the map of an intermediate stage before the last one from now on; returns its channels.

        It is that of the deepest stage with a larger map, and where all maps have one size (transformers) of the block
        at three quarters of the depth. ``None`` for a model whose stages timm does not give.
        """
        stages = list(getattr(self.trunk, "feature_info", ()))
        if len(stages) < 2 or not hasattr(self.trunk, "forward_intermediates"):
            return None
        larger = [k for k, stage in enumerate(stages) if stage["reduction"] < stages[-1]["reduction"]]
        self.middle = larger[-1] if larger else 3 * len(stages) // 4 - 1
        return int(stages[self.middle]["num_chs"])

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) in [0, 1] -> [(B, C, h, w)], behind what :attr:`middle` or :attr:`every_block` asks for."""
        x = (images - self.mean) / self.std
        if self.every_block:
            trunk, tokens = self.trunk, []
            x = trunk.norm_pre(trunk.patch_drop(trunk._pos_embed(trunk.patch_embed(x))))
            for block in trunk.blocks:
                tokens.append(x)
                x = block(x)
            return [self._as_map(part) for part in (*tokens, trunk.norm(x))]
        middle: list[Tensor] = []
        if self.middle is None:
            x = self.trunk.forward_features(x)
        else:
            x, middle = self.trunk.forward_intermediates(x, indices=[self.middle])
        if x.ndim == 3:
            x = self._as_map(x)
        elif getattr(self.trunk, "output_fmt", "NCHW") == "NHWC":
            x = x.permute(0, 3, 1, 2)
        return [*middle, x]

    def _as_map(self, x: Tensor) -> Tensor:
        """(B, tokens, C) of a transformer -> (B, C, h, w)."""
        x = x[:, getattr(self.trunk, "num_prefix_tokens", 0) :]
        side = int(x.shape[1] ** 0.5)
        if side * side != x.shape[1]:
            raise ValueError(f"the {x.shape[1]} tokens of this timm model do not form a square map")
        return x.transpose(1, 2).reshape(len(x), -1, side, side)


def give_every_block(backbone: nn.Module) -> int:
    """Have a vision transformer of timm's give the maps in front of every block as well; returns how many blocks.

    Raises:
        ValueError: the backbone is none with plain blocks.
    """
    trunk = backbone.trunk if isinstance(backbone, TimmBackbone) else None
    from timm.models.vision_transformer import Block, VisionTransformer  # heavy: only when asked for

    if not isinstance(trunk, VisionTransformer) or any(
        type(block) is not Block or getattr(block.attn, "gate", None) is not None for block in trunk.blocks
    ):
        name = getattr(trunk, "default_cfg", {}).get("architecture", type(backbone).__name__)
        raise ValueError(f"a head on blocks needs one of timm's vit_* models as network.backbone, not {name}")
    assert isinstance(backbone, TimmBackbone)
    backbone.every_block = True
    return len(trunk.blocks)


def build_backbone(name: str, image_size: int = 224, **options: Any) -> nn.Module:
    """Make a backbone.

    Args:
        name: ``tresnet_m``, ``tresnet_l``, ``tresnet_xl``, ``tresnet`` (with ``layers=`` and ``width=``), a
            name of :mod:`mlcil.models.resnet`, ``dkt``, ``daformer``, ``onnx``, or any timm model name.
        image_size: side of the square input images in pixels.
        options: further arguments of :class:`~mlcil.models.tresnet.TResNet`,
            :class:`~mlcil.models.resnet.ResNet`, an encoder of :mod:`mlcil.models.vision_transformer`,
            :class:`~mlcil.models.onnx_backbone.OnnxBackbone`, or of :class:`TimmBackbone`.

    Raises:
        ValueError: unknown name, or an image size that TResNet cannot take.
    """
    if name == "tresnet" or name in VARIANTS:
        if image_size % 32:
            raise ValueError(f"image_size {image_size} does not suit TResNet; use a multiple of 32")
        if name in VARIANTS:
            layers, width = VARIANTS[name]
            return TResNet(layers, width, **options)
        return TResNet(**options)
    if name in resnet.VARIANTS:
        return resnet.ResNet(**{**resnet.VARIANTS[name], **options})
    if name == "daformer":
        return DAFormerEncoder(image_size=image_size, **options)
    if name in ENCODERS:
        return ENCODERS[name](**options)
    if name == ONNX:
        return OnnxBackbone(**options)
    return TimmBackbone(name, image_size, **options)


def give_middle(backbone: nn.Module) -> int | None:
    """Channels of the map before the last one, which a timm model gives from now on too; ``None`` where there is none.

    Of TResNet and ResNet it is the third stage's, in general that of the stage before the last.
    """
    if isinstance(backbone, TimmBackbone):
        return backbone.give_middle()
    channels: Sequence[int] = getattr(backbone, "stage_channels", ())
    return channels[-2] if len(channels) > 1 else None


def grid_of(backbone: nn.Module, image_size: int) -> tuple[int, int]:
    """Height and width of the last map for square images of that size."""
    if isinstance(backbone, TResNet):
        return image_size // backbone.stride, image_size // backbone.stride
    if isinstance(backbone, OnnxBackbone):
        return backbone.grid
    was_training = backbone.training
    parameter = next(backbone.parameters())
    with torch.no_grad():
        last = backbone.eval()(torch.zeros(1, 3, image_size, image_size).to(parameter))[-1]
    backbone.train(was_training)
    return last.shape[-2], last.shape[-1]
