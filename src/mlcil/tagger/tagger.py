"""A tagger from its file, whichever kind of file it is. Torch is imported for those that need it."""

from __future__ import annotations

from pathlib import Path

from mlcil.errors import UserError
from mlcil.protocols import check_option
from mlcil.system.onnx_graph import ENGINES
from mlcil.tagger.base import Tagger


def load(path: str | Path, device: str = "cpu", precision: str = "auto", engine: str = "auto") -> Tagger:
    """A tagger from its file, without the training config.

    Args:
        path: ``saved_models/<run>/session_<t>.pth``, or what ``mlcil export`` wrote (``.onnx``, ``.safetensors``).
        device: where the network goes: ``cpu``, ``cuda``, ``cuda:1``, or ``auto``, the first GPU if there is one.
            An ONNX file computes on the CPU.
        precision: ``auto`` is bf16 where the device multiplies it, fp16 on older GPUs and fp32 elsewhere; or one of
            these. An ONNX file has its own.
        engine: ``auto`` is onnxruntime for an ONNX file and torch for the others; ``onnxruntime`` writes the graph
            first, which takes some seconds, and keeps it in the cache folder.

    Raises:
        UserError: missing or damaged file, no tagger, no such device, precision or engine, or a package is missing.
    """
    check_option("engine", engine, ENGINES)
    path = Path(path)
    if path.suffix.lower() == ".onnx":
        from mlcil.tagger.onnx_file import load_onnx

        if engine == "torch":
            raise UserError(f"{path} is an ONNX file, which onnxruntime computes; leave engine=torch out")
        return load_onnx(path)
    from mlcil.tagger.stage import load_stage  # torch, which takes its time

    tagger = load_stage(path, device, precision)
    if engine != "onnxruntime":
        return tagger
    from mlcil.tagger.export import through_onnxruntime

    return through_onnxruntime(tagger, path)
