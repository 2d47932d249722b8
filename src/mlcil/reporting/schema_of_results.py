"""What a ``results.json`` holds, for whoever reads one that somebody may have edited."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from annotated_types import Ge
from pydantic import BaseModel, ConfigDict, ValidationError

Number = float | None
Numbers = dict[str, Number]
Count = Annotated[int, Ge(0)]


class _Part(BaseModel):
    """A part of the file: the named keys have these types where they are given, others are nobody's business."""

    model_config = ConfigDict(strict=True, extra="allow")


class Train(_Part):
    """What a session trained on."""

    images: Count = 0
    labels_per_image: Number = None
    exemplars: Count = 0


class Memory(_Part):
    """What a session has kept."""

    bytes: dict[str, float] = {}


class Session(_Part):
    """Results of a session; see the glossaries of :mod:`mlcil.evaluation`."""

    index: Count = 0
    classes: list[str] = []
    mAP: Numbers = {}
    fixed_mAP: Numbers = {}
    f1: dict[str, Numbers] = {}
    fixed_AP: list[Number] = []
    accuracy: Numbers = {}
    top5: Numbers = {}
    class_accuracy: list[Number] = []
    session_accuracy: list[Number] = []
    mean_session_accuracy: Number = None
    train: Train = Train()
    memory: Memory = Memory()
    report: dict[str, Any] = {}
    seconds: Number = None
    evaluation_seconds: Number = None


class Provenance(_Part):
    """Where the numbers come from."""

    command: str = ""
    seed: int | None = None
    device: str = ""
    versions: dict[str, str] = {}
    weights: dict[str, Any] | None = None


class Results(_Part):
    """The whole file."""

    format: Literal["mlcil-results-1"]
    name: str = ""
    status: str = "unknown"
    method: str = ""
    task: Literal["multi_label", "single_label"] = "multi_label"
    protocol: str = ""
    protocol_hash: str = ""
    comparison_hash: str = ""
    dataset: str = ""
    classes: list[str] = []
    sessions: list[Session]
    summary: dict[str, Number | list[list[Number]]] = {}
    provenance: Provenance = Provenance()
    config: str = ""


def contradiction(content: Mapping[str, Any]) -> str | None:
    """The first value that no run writes, in words, or ``None``."""
    try:
        Results.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).lstrip(".")
        if first["type"] == "missing":
            return f"{place} is missing"
        return f"{place} is {reprlib.repr(first['input'])} ({first['msg'].lower()})"
    return None
