"""New taggers from old ones: labels renamed, dropped, two extensions merged. A file is never changed or replaced.

Every file names the SHA-256 of those that it was made from. Scores stay the same to the bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import mlcil
from mlcil.datasets.labels import fold
from mlcil.engine.checkpoint import StageCheckpoint
from mlcil.errors import UserError
from mlcil.interop.pretrained import file_sha256
from mlcil.models.composed import COMPOSED
from mlcil.protocols import did_you_mean
from mlcil.reporting.formats import bytes_text


def check_new(out: Path) -> None:
    """Refuse the name of a file that is there.

    Raises:
        UserError: it is, or is a folder.
    """
    if out.exists():
        raise UserError(f"{out} exists already, and a tagger's file is never replaced; choose another --out")


def check_names(classes: Sequence[str], where: str) -> None:
    """Refuse labels that are there twice, also under another spelling.

    Raises:
        UserError: names both.
    """
    seen: dict[str, str] = {}
    for name in classes:
        other = seen.setdefault(fold(name), name)
        if other is not name or list(classes).count(name) > 1:
            raise UserError(
                f"{where} would have the labels {other!r} and {name!r}; expected each once, so rename or drop one"
            )


def known(stage: StageCheckpoint, name: str, path: Path) -> int:
    """Column of a label.

    Raises:
        UserError: the tagger has no such label; the near one is suggested.
    """
    if name not in stage.classes:
        raise UserError(
            f"{path} has no label {name!r}{did_you_mean(name, stage.classes)} among its {len(stage.classes)}; "
            "`mlcil info` lists them"
        )
    return stage.classes.index(name)


def rename(path: Path, names: Mapping[str, str], out: Path) -> StageCheckpoint:
    """Other names for some labels.

    Raises:
        UserError: no such label, an empty name, one that another label has, or the file of ``out`` exists.
    """
    check_new(out)
    stage = StageCheckpoint.load(path)
    for old, new in names.items():
        known(stage, old, path)
        if not new.strip() or new != new.strip():
            raise UserError(f"the new name of {old!r} is {new!r}; expected a word without spaces at its ends")
    classes = [names.get(name, name) for name in stage.classes]
    check_names(classes, str(out))
    card = {**stage.card, "labels": {names.get(k, k): v for k, v in stage.card.get("labels", {}).items()}}
    made = replace(stage, classes=classes, card=card, **_origin([path], f"renamed from {path.name}"))
    made.save(out)
    return made


def drop(path: Path, names: Sequence[str], out: Path) -> StageCheckpoint:
    """Without some labels; what the method has kept for further sessions goes with them.

    Raises:
        UserError: no such label, none would be left, or the file of ``out`` exists.
    """
    check_new(out)
    stage = StageCheckpoint.load(path)
    gone = {known(stage, name, path) for name in names}
    columns = [column for column in range(len(stage.classes)) if column not in gone]
    if not columns:
        raise UserError(f"{path} has {len(stage.classes)} labels, and all of them are to be dropped; keep at least one")
    made = side_by_side([(stage, columns)], _origin([path], f"{path.name} without {', '.join(names)}"))
    made.build(out)
    made.save(out)
    return made


def merge(first: Path, second: Path, out: Path) -> StageCheckpoint:
    """The labels of both taggers, which come from one backbone: those that both have are the first one's.

    Raises:
        UserError: other backbones or preprocessing, a label that both have with other scores, one under two spellings,
            nothing new in the second, or the file of ``out`` exists.
    """
    check_new(out)
    one, two = StageCheckpoint.load(first), StageCheckpoint.load(second)
    for name, left, right in (
        ("backbone", one.network["backbone"], two.network["backbone"]),
        ("image size", one.network["image_size"], two.network["image_size"]),
        ("preprocessing", one.fit, two.fit),
        ("task", one.task, two.task),
    ):
        if left != right:
            raise UserError(
                f"{first} and {second} differ in their {name} ({left} and {right}); expected two extensions of one "
                "tagger, so extend one of them by the other's labels instead"
            )
    if not _same_backbone(one.state_dict, two.state_dict):
        raise UserError(
            f"{first} and {second} have other backbone weights; expected two extensions of one tagger by its default "
            "method, so extend one of them by the other's labels instead"
        )
    columns = [column for column, name in enumerate(two.classes) if name not in one.classes]
    if not columns:
        raise UserError(f"{second} has no label that {first} lacks, so there is nothing to merge")
    check_names([*one.classes, *(two.classes[c] for c in columns)], str(out))
    _same_scores(first, one, second, two)
    parts = [(one, list(range(len(one.classes)))), (two, columns)]
    made = side_by_side(parts, _origin([first, second], f"{first.name} and {second.name}"))
    made.build(out)
    made.save(out)
    return made


def _same_backbone(one: Mapping[str, Tensor], two: Mapping[str, Tensor]) -> bool:
    names = [name for name in one if name.startswith("backbone.")]
    return all(name in two and torch.equal(one[name], two[name]) for name in names)


def _same_scores(first: Path, one: StageCheckpoint, second: Path, two: StageCheckpoint) -> None:
    """Labels that both have must be the same ones: the same logits for the same maps.

    Raises:
        UserError: names a label whose scores differ.
    """
    both = [name for name in one.classes if name in set(two.classes)]
    size = int(one.network["image_size"])
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    networks = [stage.build(path) for stage, path in ((one, first), (two, second))]
    with torch.inference_mode():
        logits = [network(images).logits_BC for network in networks]
    for name in both:
        left, right = (x[:, stage.classes.index(name)] for x, stage in zip(logits, (one, two), strict=True))
        if not torch.equal(left, right):
            raise UserError(
                f"{name!r} has other scores in {first} than in {second}; expected one meaning of it, so rename it in "
                "one of them or drop it there"
            )


def side_by_side(parts: Sequence[tuple[StageCheckpoint, list[int]]], origin: Mapping[str, Any]) -> StageCheckpoint:
    """The chosen outputs of taggers with one backbone, side by side."""
    first = parts[0][0]
    heads: list[dict[str, Any]] = []
    state = {name: value for name, value in first.state_dict.items() if name.startswith("backbone.")}
    classes, thresholds, corrections, labels, sizes = [], [], [], {}, []
    for stage, columns in parts:
        for head, weights in _heads(stage, columns):
            state.update({f"head.parts.{len(heads)}.{name}": value for name, value in weights.items()})
            heads.append(head)
        names = [stage.classes[column] for column in columns]
        classes += names
        sizes += sessions_of(columns, stage.classes_per_session)
        all_thresholds = thresholds_of(stage)
        thresholds += [all_thresholds[column] for column in columns]
        corrections.append(correction_of(stage)[columns])
        labels.update({name: stage.card["labels"][name] for name in names if name in stage.card.get("labels", {})})
    any_correction = any(stage.logit_correction is not None for stage, _ in parts)
    any_threshold = any(stage.thresholds is not None for stage, _ in parts)
    values: dict[str, Any] = dict(  # noqa: C408
        session=len(sizes) - 1,
        network={**first.network, "head": {"type": COMPOSED, "parts": heads}},
        classes_per_session=sizes,
        classes=classes,
        state_dict=state,
        method="",
        method_options={},
        method_state={},
        metrics={},
        protocol="",
        protocol_hash="",
        logit_correction=torch.cat(corrections) if any_correction else None,
        thresholds=thresholds if any_threshold else None,
        kept={},
        card={**first.card, "labels": labels},
    )
    return replace(first, **{**values, **origin})


def _heads(stage: StageCheckpoint, columns: list[int]) -> list[tuple[dict[str, Any], dict[str, Tensor]]]:
    """Parts of a composed head that gives these outputs of a tagger, each with its weights."""
    head = stage.network["head"]
    weights = {name.removeprefix("head."): v for name, v in stage.state_dict.items() if name.startswith("head.")}
    everything = list(range(len(stage.classes)))
    if head["type"] == COMPOSED and columns == everything and not head.get("blends"):  # no head in a head in a head
        starts = [f"parts.{number}." for number in range(len(head["parts"]))]
        return [
            (part, {name.removeprefix(start): v for name, v in weights.items() if name.startswith(start)})
            for part, start in zip(head["parts"], starts, strict=True)
        ]
    chosen = None if columns == everything else columns
    return [({"head": head, "sizes": list(stage.classes_per_session), "columns": chosen}, weights)]


def more(name: str) -> str:
    """What the outputs of more photos of a label are called until :func:`blended` puts them into its own."""
    return f"{name} (more photos)"


def blended(stage: StageCheckpoint, names: Sequence[str]) -> StageCheckpoint:
    """Each label's calibrated logit becomes the mean of its own and that of its :func:`more`, which come last.

    So does its threshold. What the method keeps for further sessions goes.
    """
    if not names:
        return stage
    whole = side_by_side([(stage, list(range(len(stage.classes))))], {"run": stage.run, "card": stage.card})
    lines, thresholds = correction_of(stage).double(), thresholds_of(stage)
    left = len(stage.classes) - len(names)
    blends = []
    for name in names:
        target, source = stage.classes.index(name), stage.classes.index(more(name))
        blends.append([target, source, float(lines[target, 0]) / 2, float(lines[source, 0]) / 2])
        lines[target] = torch.tensor([1.0, float(lines[target, 1] + lines[source, 1]) / 2], dtype=lines.dtype)
        given = [t for t in (thresholds[target], thresholds[source]) if t == t]
        logits = torch.logit(torch.tensor(given, dtype=torch.float64), eps=1e-6)
        thresholds[target] = float(torch.sigmoid(logits.mean()))
    sizes = [*stage.classes_per_session[:-1], stage.classes_per_session[-1] - len(names)]
    return replace(
        whole,
        network={**whole.network, "head": {**whole.network["head"], "blends": blends}},
        classes=stage.classes[:left],
        classes_per_session=[size for size in sizes if size],
        thresholds=thresholds[:left],
        logit_correction=lines[:left].float(),
    )


def apart(stage: StageCheckpoint) -> tuple[StageCheckpoint, StageCheckpoint]:
    """A composed tagger without its last part, and that part with all of its labels, on a frozen backbone.

    The labels of that part, used or not, are the last ones.
    """
    head = stage.network["head"]
    *finished, last = head["parts"]
    count, edge = sum(last["sizes"]), len(stage.classes) - sum(last["sizes"])
    start = f"head.parts.{len(finished)}."
    backbone = {name: value for name, value in stage.state_dict.items() if name.startswith("backbone.")}
    correction = correction_of(stage)

    def piece(
        low: int, high: int, sizes: list[int], head: dict[str, Any], weights: dict[str, Tensor]
    ) -> StageCheckpoint:
        return replace(
            stage,
            session=len(sizes) - 1,
            network={**stage.network, "head": head},
            classes_per_session=sizes,
            classes=stage.classes[low:high],
            state_dict={**backbone, **weights},
            thresholds=thresholds_of(stage)[low:high],
            logit_correction=correction[low:high],
        )

    sizes = stage.classes_per_session
    others = {
        name: v for name, v in stage.state_dict.items() if name.startswith("head.") and not name.startswith(start)
    }
    own = {f"head.{name.removeprefix(start)}": v for name, v in stage.state_dict.items() if name.startswith(start)}
    first = piece(0, edge, sizes[: len(sizes) - len(last["sizes"])], {**head, "parts": finished}, others)
    second = piece(edge, edge + count, list(last["sizes"]), last["head"], own)
    return first, replace(second, network={**second.network, "frozen_backbone": True})


def sessions_of(columns: Sequence[int], sizes: Sequence[int]) -> list[int]:
    """How many of the chosen columns each session brought, without sessions that have none left."""
    found, low = [], 0
    for size in sizes:
        found.append(sum(low <= column < low + size for column in columns))
        low += size
    return [count for count in found if count]


def thresholds_of(stage: StageCheckpoint) -> list[float]:
    """One a label, nan where there is none."""
    return list(stage.thresholds) if stage.thresholds is not None else [float("nan")] * len(stage.classes)


def correction_of(stage: StageCheckpoint) -> Tensor:
    """Scale and shift of every logit (C, 2), which change nothing where there are none."""
    if stage.logit_correction is not None:
        return stage.logit_correction
    return torch.tensor([[1.0, 0.0]]).repeat(len(stage.classes), 1)


def _origin(paths: Sequence[Path], run: str) -> dict[str, Any]:
    return {"parents": [file_sha256(path) for path in paths], "run": run, "mlcil_version": mlcil.__version__}


def describe(path: Path) -> dict[str, Any]:
    """What ``mlcil info`` says, as plain values."""
    stage = StageCheckpoint.load(path)
    thresholds, correction, seen = thresholds_of(stage), stage.logit_correction, stage.card.get("labels", {})
    edges = [session for session, size in enumerate(stage.classes_per_session) for _ in range(size)]
    labels = [
        {
            "label": name,
            "session": edges[column],
            "threshold": None if thresholds[column] != thresholds[column] else thresholds[column],
            "calibrated": correction is not None and correction[column].tolist() != [1.0, 0.0],
            **({"photos": seen[name]} if name in seen else {}),
        }
        for column, name in enumerate(stage.classes)
    ]
    shown = {part.name for part in fields(stage)} - {"state_dict", "method_state", "logit_correction", "thresholds"}
    shown -= {"classes", "classes_per_session", "card", "run", "metrics"}
    return {
        "file": str(path),
        "sha256": file_sha256(path),
        "bytes": path.stat().st_size,
        "from": stage.run,
        **{name: getattr(stage, name) for name in sorted(shown)},
        "card": {key: value for key, value in stage.card.items() if key != "labels"},
        "labels": labels,
    }


def description(facts: Mapping[str, Any]) -> list[str]:
    """The same as lines for a reader."""
    backbone = facts["network"]["backbone"]
    kept = ", ".join(f"{kind} {bytes_text(count)}" for kind, count in facts["kept"].items() if count)
    lines = [
        f"{facts['file']}: {len(facts['labels'])} labels, {bytes_text(facts['bytes'])}, from {facts['from']}",
        f"SHA-256     {facts['sha256']}",
        f"made from   {', '.join(facts['parents']) or 'no other tagger'}",
        f"backbone    {backbone.get('name')}, {facts['network']['image_size']} pixels a side",
        f"method      {facts['method'] or 'none that goes on'}",
        f"kept of old photos  {kept or 'nothing'}",
        *(f"{key:<11} {value}" for key, value in facts["card"].items()),
        "label (session): threshold",
    ]
    for label in facts["labels"]:
        threshold = "none" if label["threshold"] is None else f"{label['threshold']:.3f}"
        counts = ", ".join(f"{count} {word}" for word, count in label.get("photos", {}).items())
        lines.append(f"  {label['label']} ({label['session']}): {threshold}{f'; photos: {counts}' if counts else ''}")
    return lines
