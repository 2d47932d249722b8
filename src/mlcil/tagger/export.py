"""A tagger for use outside of PyTorch: written, read again, and compared with what it came from.

Legend: N photos, B images of a batch, C classes, L labels that are known of the photos.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from mlcil.errors import UserError
from mlcil.evaluation.multilabel import mean_average_precision
from mlcil.files import write_bytes
from mlcil.images import decode
from mlcil.inference.export import around_onnx, to_onnx
from mlcil.inference.quantise import quantised
from mlcil.models.onnx_backbone import OnnxBackbone
from mlcil.tagger.base import Tagger
from mlcil.tagger.onnx_file import FORMAT, OnnxTagger, onnx_tagger
from mlcil.tagger.safetensors_file import write_safetensors
from mlcil.tagger.stage import StageTagger, load_stage

PARITY = 1e-5  # largest difference of two scores that is rounding
TRIED = 64  # photos that scores are compared on, at most
CALIBRATION = 200  # photos that 8 bits are fitted to, at most
BATCH = 16


@dataclass(frozen=True)
class Judged:
    """Photos with what is known of their labels: N files, L names, and (N, L) cells of 1, 0 or -1 (unknown)."""

    files: Sequence[Path]
    names: Sequence[str]
    cells_NL: np.ndarray


def export(
    path: Path,
    target: Path,
    int8: bool = False,
    calibrate: Sequence[Path] = (),
    judged: Judged | None = None,
    max_drop: float = 0.5,
) -> list[str]:
    """Write a tagger as ``.onnx`` or ``.safetensors``, and say how its scores compare.

    Args:
        path: the tagger, a stage checkpoint or a ``.safetensors`` of it.
        target: the file to write; its ending says in which form.
        int8: ONNX in whole numbers of 8 bits.
        calibrate: photos, which int8 is fitted to and scores are compared on; without any these are made of noise.
        judged: labelled photos, for mAP.
        max_drop: points of mAP that int8 may cost on them.

    Returns:
        Lines for the user.

    Raises:
        UserError: another ending, no tagger, a network that ONNX cannot express, scores that differ by more than
            rounding, or int8 without photos, or one that costs too much; nothing is written then.
    """
    kind = target.suffix.lower()
    if kind not in (".onnx", ".safetensors"):
        raise UserError(f"{target} ends in neither .onnx nor .safetensors, and the ending says what is written")
    if int8 and kind != ".onnx":
        raise UserError(f"{target} holds weights as they are; --int8 is for an .onnx file")
    if int8 and not calibrate:
        raise UserError("int8 is fitted to photos like those to come; name a folder of some hundred with --calibrate")
    tagger = load_stage(path, precision="fp32")
    images = _images(tagger, calibrate[:TRIED])
    expected = tagger.scores(images)
    if kind == ".safetensors":
        write_safetensors(tagger.info, target)
        written = load_stage(target, precision="fp32")
        return [_parity(expected, written.scores(images), target), _size(target)]
    content = onnx_content(tagger, "int8" if int8 else "fp32")
    lines = [_parity(expected, onnx_tagger(content, target).scores(images), target)]
    if int8:
        content = quantised(content, (decode(p, tagger.image_size, tagger.fit) for p in calibrate[:CALIBRATION]))
        lines += _cost(tagger, onnx_tagger(content, target), images, judged, max_drop)
    write_bytes(target, content)
    return [*lines, _size(target)]


def onnx_content(tagger: StageTagger, precision: str = "fp32") -> bytes:
    """The content of an ONNX file that :func:`~mlcil.tagger.onnx_file.load_onnx` reads.

    Raises:
        UserError: a package is missing, or the network has a part that ONNX does not know.
    """
    info, thresholds = tagger.info, tagger.thresholds
    words = {
        "format": FORMAT,
        "classes": tagger.classes,
        "thresholds": None if thresholds is None else [None if math.isnan(x) else x for x in thresholds],
        "image_size": tagger.image_size,
        "fit": asdict(tagger.fit),
        "precision": precision,
        **{name: getattr(info, name) for name in ("task", "run", "session", "protocol", "method", "mlcil_version")},
    }
    metadata = {name: json.dumps(value, ensure_ascii=False) for name, value in words.items()}
    module, backbone = tagger.module.cpu(), tagger.network.backbone
    if not isinstance(backbone, OnnxBackbone):
        return to_onnx(module, tagger.image_size, "scores", metadata)
    behind = copy.deepcopy(module, {id(backbone): backbone.behind})
    return around_onnx(backbone.before, backbone.content(), behind, tagger.image_size, "scores", metadata)


def through_onnxruntime(tagger: StageTagger, path: Path) -> OnnxTagger:
    """The same tagger, computed by onnxruntime.

    Raises:
        UserError: a package is missing, or the network has a part that ONNX does not know.
    """
    return onnx_tagger(onnx_content(tagger), path)


def _images(tagger: StageTagger, files: Sequence[Path]) -> np.ndarray:
    if files:
        return np.stack([decode(path, tagger.image_size, tagger.fit) for path in files])
    return np.random.default_rng(0).integers(0, 256, (8, tagger.image_size, tagger.image_size, 3), np.uint8)


def _parity(expected_BC: np.ndarray, found_BC: np.ndarray, target: Path) -> str:
    difference = float(np.abs(expected_BC - found_BC).max())
    if not difference <= PARITY:
        raise UserError(
            f"the scores of {target} differ by {difference:.1e} from those of PyTorch, more than {PARITY:.0e}; "
            "nothing can be said for such a file, so use the checkpoint"
        )
    return f"scores of {len(expected_BC)} images: largest difference to PyTorch {difference:.1e}"


def _cost(
    tagger: StageTagger, small: OnnxTagger, images: np.ndarray, judged: Judged | None, max_drop: float
) -> list[str]:
    """What 8 bits do to the scores, in lines."""
    difference_BC = np.abs(tagger.scores(images) - small.scores(images))
    lines = [f"int8: scores differ by {difference_BC.mean():.4f} in the mean, {difference_BC.max():.3f} at most"]
    if judged is None:
        return [*lines, "int8: mAP not measured, since no labelled photos were given (--on LABELS)"]
    shared = [name for name in judged.names if name in tagger.classes]
    cells_NL = judged.cells_NL[:, [list(judged.names).index(name) for name in shared]]
    if not (cells_NL == 1).any():
        raise UserError("the labelled photos show no class of the tagger, so there is no mAP; give others with --on")
    columns = [tagger.classes.index(name) for name in shared]
    before, after = (
        mean_average_precision(_scores(some, tagger, judged.files)[:, columns], cells_NL, "skip")
        for some in (tagger, small)
    )
    assert before is not None
    assert after is not None
    said = f"mAP {before:.2f} in fp32, {after:.2f} in int8 on {len(judged.files)} photos with {len(shared)} labels"
    if before - after > max_drop:
        raise UserError(
            f"{said}: int8 costs {before - after:.2f} points, more than {max_drop}; calibrate with more photos, leave "
            "--int8 out or raise --max-drop"
        )
    return [*lines, said]


def _scores(tagger: Tagger, like: Tagger, files: Sequence[Path]) -> np.ndarray:
    def batches() -> Iterator[np.ndarray]:
        for low in range(0, len(files), BATCH):
            yield np.stack([decode(path, like.image_size, like.fit) for path in files[low : low + BATCH]])

    return np.concatenate([tagger.scores(images) for images in batches()])


def _size(target: Path) -> str:
    return f"{target}: {target.stat().st_size / 1e6:.1f} MB"
