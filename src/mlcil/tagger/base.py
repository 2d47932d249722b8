"""Images in, class names and scores out. A tagger of an ONNX file needs no torch, so nothing here imports it."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from mlcil.errors import UserError
from mlcil.images import BAD_IMAGE, Fit, decode
from mlcil.protocols import check_option

_log = logging.getLogger(__name__)
Name = TypeVar("Name", Path, str)


class Tagger(ABC):
    """Something trained, with its class names.

    Attributes:
        classes: class names in the order of the scores.
        thresholds: by class the score from which on it counts as shown, nan where none was chosen; ``None`` if no class
            has one.
        image_size: side in pixels that images are resized to.
        fit: how they become squares of it.
        task: ``multi_label``, or ``single_label``: an image shows one class.
    """

    classes: list[str]
    thresholds: list[float] | None
    image_size: int
    fit: Fit
    task: str

    @abstractmethod
    def scores(self, images: Any) -> Any:
        """uint8 array (B, H, W, 3) -> scores, float32 array (B, C): sigmoid, or softmax for one class an image."""

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
                yield from self.score_batch(batch)
                batch = []
        yield from self.score_batch(batch)

    def score_batch(self, batch: Sequence[tuple[Name, np.ndarray]]) -> Iterator[tuple[Name, dict[str, float]]]:
        """Squares uint8 (image_size, image_size, 3) that go through the network at once, each with a name.

        Raises:
            UserError: scores that are no numbers.
        """
        if batch:
            scores_BC = self.scores(np.stack([image for _, image in batch]))
            for (path, _), scores_C in zip(batch, scores_BC, strict=True):
                if not np.isfinite(scores_C).all():
                    raise UserError(
                        f"{path}: the tagger gives scores that are no numbers; expected finite ones, so try "
                        "--precision fp32, or train it again with a lower learning rate"
                    )
                yield path, dict(zip(self.classes, scores_C.tolist(), strict=True))
