"""A tagger in an ONNX file. No torch here.

The graph takes the bytes of decoded images and gives scores. What a reader needs besides stands in the file's metadata,
each value as json: ``format``, ``classes``, ``thresholds``, ``image_size``, ``fit`` (how an image becomes a square),
``precision``, and what is known of the training.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mlcil.errors import UserError
from mlcil.images import Fit
from mlcil.system.onnx_graph import Graph, read_graph
from mlcil.tagger.base import Tagger

FORMAT = "mlcil-onnx-1"
LARGEST_IMAGE = 4096  # pixels a side


class OnnxTagger(Tagger):
    """See :class:`~mlcil.tagger.base.Tagger`.

    Args:
        graph: uint8 images (B, H, W, 3) -> scores (B, C).
        metadata: of the format :data:`FORMAT`, with values of python.

    Attributes:
        info: the metadata.
    """

    def __init__(self, graph: Graph, metadata: Mapping[str, Any]) -> None:
        self._graph, self.info = graph, dict(metadata)
        self.classes = list(metadata["classes"])
        chosen = metadata.get("thresholds")
        self.thresholds = None if chosen is None else [math.nan if x is None else float(x) for x in chosen]
        self.image_size, self.fit = int(metadata["image_size"]), Fit.of(metadata.get("fit", {}))
        self.task = str(metadata.get("task", "multi_label"))

    def scores(self, images: np.ndarray) -> np.ndarray:
        return self._graph(images)


def load_onnx(path: Path) -> OnnxTagger:
    """Read it.

    Raises:
        UserError: missing, no ONNX file, not one of ours, or damaged.
    """
    return onnx_tagger(read_graph(path, "an ONNX file of mlcil export"), path)


def onnx_tagger(content: bytes, path: Path) -> OnnxTagger:
    """From the content of a file; raises as :func:`load_onnx`, and names ``path``."""
    graph = Graph(content, str(path))
    try:
        metadata = {name: json.loads(value) for name, value in graph.metadata.items()}
    except (ValueError, RecursionError):
        metadata = {}
    if metadata.get("format") != FORMAT:
        raise UserError(
            f"{path} is an ONNX file without the metadata of a tagger (format {FORMAT}: class names, thresholds, image "
            "size); write it with: python -m mlcil export TAGGER FILE.onnx"
        )
    found = _contradiction(metadata)
    if found is None:
        tagger = OnnxTagger(graph, metadata)
        blank = np.zeros((1, tagger.image_size, tagger.image_size, 3), np.uint8)
        try:
            shape = tagger.scores(blank).shape
        except Exception as error:  # onnxruntime has a class of its own for every reason
            found = f"its graph does not take an image of its size ({' '.join(str(error).split())[:100]})"
        else:
            if shape == (1, len(tagger.classes)):
                return tagger
            found = f"it names {len(tagger.classes)} classes, but the scores of an image are {shape}"
    raise UserError(f"{path} is no usable tagger: {found}; export it again")


def _contradiction(metadata: Mapping[str, Any]) -> str | None:
    """What is wrong with the metadata, or ``None``."""
    classes, thresholds, size = (metadata.get(name) for name in ("classes", "thresholds", "image_size"))
    if not isinstance(classes, list) or not classes or not all(isinstance(name, str) for name in classes):
        return "its classes are no list of names"
    if len(set(classes)) < len(classes):
        return "two of its classes have the same name"
    if type(size) is not int or not 1 <= size <= LARGEST_IMAGE:
        return f"its image_size is {str(size)[:60]}, expected 1 to {LARGEST_IMAGE} pixels"
    if thresholds is not None and (
        not isinstance(thresholds, list)
        or len(thresholds) != len(classes)
        or not all(value is None or type(value) in (int, float) for value in thresholds)
    ):
        return f"its thresholds are no list of {len(classes)} numbers"
    try:
        Fit.of(metadata.get("fit", {}))
    except UserError as error:
        return str(error)
    return None
