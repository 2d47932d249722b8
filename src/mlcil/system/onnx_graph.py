"""An ONNX graph and onnxruntime, which computes it. No torch here."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from mlcil.errors import UserError
from mlcil.files import check_regular

LARGEST_FILE = 2**31 - 1  # bytes that a protobuf can have
ENGINES = ("auto", "torch", "onnxruntime")
TOGETHER = 2  # images of one call: what lies between two layers stays in the core's cache
MOST_AT_ONCE = 256  # images, of a graph that takes a fixed number of them


def has_onnxruntime() -> bool:
    """Whether the package is installed; nothing is imported."""
    return importlib.util.find_spec("onnxruntime") is not None


def onnxruntime_version() -> str:
    """As installed."""
    return importlib.metadata.version("onnxruntime")


class Graph:
    """A graph of one input and one output; ours take images as uint8 (B, H, W, 3), any B, and give float32 (B, ...).

    It does not change, so a copy of it is itself.

    Every thread takes :data:`TOGETHER` images at a time through the whole graph (or as many as the graph insists on),
    which is a fifth to a third faster than all threads at one layer of a large batch.

    Args:
        content: the bytes of an ONNX file. Nothing beside them is opened, whatever they name.
        name: of the file, for sentences.
        threads: that compute at once; default: ``OMP_NUM_THREADS``, else a thread a core.

    Attributes:
        metadata: words that the file carries.
        inputs, outputs: onnxruntime's descriptions, each with a name, a type and a shape.

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
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has a class of its own for every reason
            raise UserError(f"{name} cannot be read as an ONNX graph ({reason_of(error)}); export it again") from error
        asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]  # a list is of nested levels
        self._threads = ThreadPoolExecutor(threads or (int(asked) if asked.isdigit() else 0) or os.cpu_count())
        self.inputs, self.outputs = self._session.get_inputs(), self._session.get_outputs()
        self.metadata: Mapping[str, str] = self._session.get_modelmeta().custom_metadata_map
        count = self.inputs[0].shape[0] if self.inputs and self.inputs[0].shape else None
        self._fixed = isinstance(count, int)
        self._at_once = count if isinstance(count, int) else TOGETHER
        if not 1 <= self._at_once <= MOST_AT_ONCE:
            raise UserError(f"{name} takes {count} images at once; expected any number, or one of 1 to {MOST_AT_ONCE}")

    def __deepcopy__(self, memo: dict[int, Any]) -> Graph:
        return self

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """N images -> the output (N, ...)."""
        parts = [images[low : low + self._at_once] for low in range(0, len(images), self._at_once)] or [images]
        if self._fixed:
            parts[-1] = np.resize(parts[-1], (self._at_once, *images.shape[1:]))  # repeats what is there
        return np.concatenate(list(self._threads.map(self._run, parts)))[: len(images)]

    def _run(self, images: np.ndarray) -> np.ndarray:
        name = self.inputs[0].name if self.inputs else ""
        result: Any = self._session.run(None, {name: np.ascontiguousarray(images)})[0]
        return np.asarray(result)


def read_graph(path: Path, expected: str) -> bytes:
    """The content of an ONNX file.

    Args:
        path: the file.
        expected: what should be there, for the sentence.

    Raises:
        UserError: missing, no regular file, or larger than one can be.
    """
    check_regular(path)
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise UserError(f"{path} has {path.stat().st_size} bytes, more than an ONNX file can have; export it again")
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); expected {expected}") from None


def reason_of(error: Exception) -> str:
    """The first line of a message, cut to what fits into a sentence."""
    return " ".join(str(error).split())[:160]
