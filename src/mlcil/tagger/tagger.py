"""A stage checkpoint as a tagger: images in, class names and scores out."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mlcil.datasets.loading import BAD_IMAGE
from mlcil.datasets.transforms import Fit, decode
from mlcil.engine.checkpoint import StageCheckpoint
from mlcil.errors import UserError
from mlcil.methods.base import corrected
from mlcil.models.data_preprocessor import network_input
from mlcil.models.folding import folded
from mlcil.models.network import IncrementalNetwork
from mlcil.models.numerics import autocast, resolve_precision
from mlcil.protocols import check_option

_log = logging.getLogger(__name__)
JUDGED_AT = 0.8  # score from which a label without a threshold of its own is given, as the metrics judge it
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff"}


@dataclass
class Tagger:
    """A trained network with its class names.

    Attributes:
        network: in evaluation mode; for predictions only, with its batch norms inside the convolutions.
        classes: class names in the order of the scores.
        info: the checkpoint (run, session, protocol, metrics, provenance).
        correction: scale and shift of every logit (C, 2), where the method predicts with corrected ones.
        dtype: of matrix products and convolutions.
    """

    network: IncrementalNetwork
    classes: list[str]
    info: StageCheckpoint
    correction: Tensor | None = None
    dtype: torch.dtype = torch.float32

    @classmethod
    def of(
        cls, stage: StageCheckpoint, path: str | Path = "checkpoint", device: str = "cpu", precision: str = "auto"
    ) -> Tagger:
        """The tagger of a stage checkpoint; arguments and errors as :func:`load`, ``path`` for messages."""
        place = _device(device)
        dtype = resolve_precision(precision, place)
        network = folded(stage.build(path)).to(place)
        network.to(memory_format=torch.channels_last)
        return cls(network, list(stage.classes), stage, stage.logit_correction, dtype)

    @property
    def thresholds(self) -> np.ndarray:
        """A label is given where its score is at least this (C,): the file's, or :data:`JUDGED_AT` where it has none."""
        chosen = self.info.thresholds
        found_C = np.full(len(self.classes), np.nan) if chosen is None else np.array(chosen, np.float64)
        return np.where(np.isnan(found_C), JUDGED_AT, found_C)

    @property
    def fit(self) -> Fit:
        """How images become squares of :attr:`image_size`."""
        return Fit.of(self.info.fit)

    @property
    def image_size(self) -> int:
        """Side in pixels that images are resized to."""
        return int(self.network.spec["image_size"])

    def scores(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) float in [0, 1] -> scores (B, C), float32: sigmoid, or softmax for one class an image."""
        device = next(self.network.parameters()).device
        with torch.inference_mode(), autocast(device, self.dtype):
            logits = corrected(self.network(images.to(device)).logits_BC.float(), self.correction)
            single = self.info.task == "single_label"
            return (torch.softmax(logits, 1) if single else torch.sigmoid(logits)).cpu()

    def predict(
        self, paths: Iterable[Path | str], batch_size: int = 16, on_bad_image: str = "raise"
    ) -> Iterator[tuple[Path, dict[str, float]]]:
        """Image files, lazily -> (path, {class name: score}) in the given order.

        Args:
            paths: image files.
            batch_size: images that go through the network at once.
            on_bad_image: ``raise`` ends at an image that cannot be read, without the rest of its batch; ``skip`` leaves
                it out and logs a warning with its sentence.

        Raises:
            UserError: an image that cannot be read or whose scores are no numbers, or no such policy.
        """
        check_option("on_bad_image", on_bad_image, BAD_IMAGE)
        batch: list[tuple[Path, np.ndarray]] = []
        for path in map(Path, paths):
            try:
                batch.append((path, decode(path, self.image_size, self.fit)))
            except UserError as error:
                if on_bad_image == "raise":
                    raise
                _log.warning(f"image skipped: {error}")
            if len(batch) == batch_size:
                yield from self._predict_batch(batch)
                batch = []
        yield from self._predict_batch(batch)

    def _predict_batch(self, batch: Sequence[tuple[Path, np.ndarray]]) -> Iterator[tuple[Path, dict[str, float]]]:
        if batch:
            scores_BC = self.scores(network_input(torch.from_numpy(np.stack([image for _, image in batch]))))
            for (path, _), scores_C in zip(batch, scores_BC, strict=True):
                if not torch.isfinite(scores_C).all():
                    raise UserError(
                        f"{path}: the checkpoint gives scores that are no numbers; expected finite ones, so try "
                        "--precision fp32, or train it again with a lower learning rate"
                    )
                yield path, dict(zip(self.classes, scores_C.tolist(), strict=True))


def load(path: str | Path, device: str = "cpu", precision: str = "auto") -> Tagger:
    """Rebuild the network of a stage checkpoint, without the training config.

    Args:
        path: ``saved_models/<run>/session_<t>.pth``.
        device: where the network goes: ``cpu``, ``cuda``, ``cuda:1``, or ``auto``, the first GPU if there is one.
        precision: ``auto`` is bf16 where the device multiplies it, fp16 on older GPUs and fp32 elsewhere; or one of
            these.

    Raises:
        UserError: missing or damaged file, not a stage checkpoint, no such device, or no such precision.
    """
    _device(device)  # what is wrong with the words is said before a large file is read
    return Tagger.of(StageCheckpoint.load(Path(path)), path, device, precision)


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        place = torch.device(name)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"device {name!r} cannot be used ({reason}); choose auto, cpu, or a GPU such as cuda:0"
        ) from None
    return place


def find_images(path: Path) -> list[Path]:
    """The image itself, or all images below a folder in sorted order.

    Raises:
        UserError: no such path, or a folder without images.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError(f"{path} does not exist; expected an image or a folder of images")
    images = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    if not images:
        raise UserError(f"{path} holds no images; expected files ending in {', '.join(sorted(IMAGE_SUFFIXES))}")
    return images
