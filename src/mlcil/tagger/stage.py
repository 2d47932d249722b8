"""A stage checkpoint as a tagger, computed by torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
import torch
from torch import Tensor, nn

from mlcil.engine.checkpoint import StageCheckpoint
from mlcil.errors import UserError
from mlcil.images import Fit
from mlcil.models.data_preprocessor import network_input
from mlcil.models.folding import folded
from mlcil.models.network import IncrementalNetwork
from mlcil.models.numerics import autocast, corrected, resolve_precision
from mlcil.tagger.base import Tagger
from mlcil.tagger.safetensors_file import read_safetensors


class Scores(nn.Module):
    """float32 (B, 3, H, W) in [0, 1] -> scores (B, C): sigmoid, or softmax for one class an image."""

    def __init__(self, network: IncrementalNetwork, correction_C2: Tensor | None, single: bool) -> None:
        super().__init__()
        self.network, self.single = network, single
        self.register_buffer("correction_C2", correction_C2)

    def forward(self, images: Tensor, exact: bool = False) -> Tensor:
        """With ``exact`` a score has the same bits wherever it stands in the array. The sigmoid of float32 does not
        give that: the last numbers of an array take another way through the processor.
        """
        logits_BC = corrected(self.network(images).logits_BC.float(), self.correction_C2)  # type: ignore[arg-type]
        if self.single:
            return torch.softmax(logits_BC, 1)
        return torch.sigmoid(logits_BC.double()).float() if exact else torch.sigmoid(logits_BC)


@dataclass
class StageTagger(Tagger):
    """A trained network with its class names.

    Attributes:
        network: in evaluation mode; for predictions only, with its batch norms inside the convolutions.
        classes, thresholds: see :class:`~mlcil.tagger.base.Tagger`.
        info: the checkpoint (run, session, protocol, metrics, provenance).
        correction: scale and shift of every logit (C, 2), where the method predicts with corrected ones.
        dtype: of matrix products and convolutions.
    """

    network: IncrementalNetwork
    classes: list[str]
    info: StageCheckpoint
    correction: Tensor | None = None
    dtype: torch.dtype = torch.float32
    thresholds: list[float] | None = None

    def __post_init__(self) -> None:
        self.fit, self.image_size = Fit.of(self.info.fit), int(self.network.spec["image_size"])
        self.task = self.info.task

    @property
    def module(self) -> Scores:
        """From an image to its scores, as one module."""
        return Scores(self.network, self.correction, self.task == "single_label")

    @overload
    def scores(self, images: np.ndarray) -> np.ndarray: ...

    @overload
    def scores(self, images: Tensor) -> Tensor: ...

    def scores(self, images: Tensor | np.ndarray) -> Tensor | np.ndarray:
        """As :class:`~mlcil.tagger.base.Tagger`; a float tensor (B, 3, H, W) in [0, 1] gives a tensor."""
        if isinstance(images, np.ndarray):
            return self.scores(network_input(torch.tensor(images))).numpy()
        device = next(self.network.parameters()).device
        with torch.inference_mode(), autocast(device, self.dtype):
            return self.module.to(device)(images.to(device), exact=True).cpu()  # type: ignore[no-any-return]


def load_stage(path: Path, device: str = "cpu", precision: str = "auto") -> StageTagger:
    """Rebuild the network of a stage checkpoint.

    Raises:
        UserError: see :func:`mlcil.tagger.tagger.load`.
    """
    _device(device)  # what is wrong with the words is said before a large file is read
    stage = read_safetensors(path) if path.suffix.lower() == ".safetensors" else StageCheckpoint.load(path)
    return tagger_of(stage, path, device, precision)


def tagger_of(
    stage: StageCheckpoint, path: Path | str = "checkpoint", device: str = "cpu", precision: str = "auto"
) -> StageTagger:
    """The tagger of a checkpoint that is read already; ``path`` is for messages. Raises as :func:`load_stage`."""
    place = _device(device)
    dtype = resolve_precision(precision, place)
    network = folded(stage.build(path)).to(place)
    network.to(memory_format=torch.channels_last)
    return StageTagger(network, list(stage.classes), stage, stage.logit_correction, dtype, stage.thresholds)


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        place = torch.device(name)
        torch.empty(0, device=place)
        if place.type == "meta":
            raise RuntimeError("it keeps shapes and no numbers")
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"device {name!r} cannot be used ({reason}); choose auto, cpu, or a GPU such as cuda:0"
        ) from None
    return place
