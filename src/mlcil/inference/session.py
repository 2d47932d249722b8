"""An ONNX graph of ours and onnxruntime, which computes it. No torch here."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from mlcil.errors import UserError

ENGINES = ("auto", "torch", "onnxruntime")
TOGETHER = 2  # images of one call: what lies between two layers stays in the core's cache


def has_onnxruntime() -> bool:
    """Whether the package is installed; nothing is imported."""
    return importlib.util.find_spec("onnxruntime") is not None


def onnxruntime_version() -> str:
    """As installed."""
    return importlib.metadata.version("onnxruntime")


class Graph:
    """A graph with one input, images as uint8 (B, H, W, 3), and one output, float32 (B, ...); any B.

    Every thread takes :data:`TOGETHER` images at a time through the whole graph, which is a fifth to a third faster
    than all threads at one layer of a large batch, and needs no waiting between layers.

    Args:
        content: the bytes of an ONNX file. Nothing beside them is opened, whatever they name.
        name: of the file, for sentences.
        threads: that compute at once; default: ``OMP_NUM_THREADS``, else a thread a core.

    Attributes:
        metadata: words that the file carries.

    Raises:
        UserError: onnxruntime is not installed, or does not take the content.
    """

    def __init__(self, content: bytes, name: str, threads: int | None = None) -> None:
        if not has_onnxruntime():
            raise UserError(f"{name} needs the package onnxruntime, which is not installed; pip install onnxruntime")
        import onnxruntime  # heavy: only when asked for

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4  # what fails is an exception, too
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has a class of its own for every reason
            raise UserError(f"{name} cannot be read as an ONNX graph ({reason_of(error)}); export it again") from error
        self._threads = ThreadPoolExecutor(threads or int(os.environ.get("OMP_NUM_THREADS") or 0) or os.cpu_count())
        entries = self._session.get_inputs()
        self._input = entries[0].name if entries else ""
        self.metadata: Mapping[str, str] = self._session.get_modelmeta().custom_metadata_map

    def __call__(self, images_BHW3: np.ndarray) -> np.ndarray:
        """uint8 (B, H, W, 3) -> the output."""
        parts = [images_BHW3[low : low + TOGETHER] for low in range(0, len(images_BHW3), TOGETHER)]
        if len(parts) < 2:
            return self._run(images_BHW3)
        return np.concatenate(list(self._threads.map(self._run, parts)))

    def _run(self, images_BHW3: np.ndarray) -> np.ndarray:
        result: Any = self._session.run(None, {self._input: np.ascontiguousarray(images_BHW3)})[0]
        return np.asarray(result)


def reason_of(error: Exception) -> str:
    """The first line of a message, cut to what fits into a sentence."""
    return " ".join(str(error).split())[:160]
