"""Labels added to a tagger, and a first tagger: one session through the ordinary loop, thresholds, one file.

By default the backbone stays as it is and the new labels get rows of their own beside the old outputs, which nothing
touches: their scores stay the same to the bit, and this is looked at before the file is said to be good. Thresholds and
calibration of the new labels come from photos that were held out: the session is run once for each fold without its
photos, and once with all of them.

Legend: N photos of the session, L its new labels, C all labels.
"""

from __future__ import annotations

import signal
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mlcil.datasets.feature_store import BATCH, Features
from mlcil.datasets.labels import LabelledPhotos
from mlcil.engine.append import Appended, append_session
from mlcil.engine.build import method_options, restore_method
from mlcil.engine.checkpoint import StageCheckpoint, plain
from mlcil.errors import StoppedError, UserError
from mlcil.images import Fit, decode
from mlcil.interop.pretrained import file_sha256
from mlcil.methods.kept_features import KeptFeatures
from mlcil.methods.ridge import Ridge
from mlcil.reporting.formats import bytes_text, duration
from mlcil.system.bar import bar
from mlcil.tagger import versions
from mlcil.tagger.photos import FOLDS, Extras, Photos, check_spellings, folds_of, gather, table_of
from mlcil.tagger.session import (
    ROWS,
    TRAINED,
    Base,
    Recipe,
    Say,
    again,
    base_of,
    config_of,
    features_with_a_bar,
    fresh_method,
    stage_of,
)
from mlcil.tagger.stage import tagger_of
from mlcil.tagger.thresholds import calibrate

PROVED = 32  # photos on which old scores are compared
#: what old photos are worth to labels whose list has photos without them, and to others; the figures stand in the guide
LITTLE = "worth to new labels: a point or two at most, since there are photos without them (docs/add_labels.md)"
MUCH = (
    "worth to labels that no listed photo lacks, least first: nothing (refused), statistics, unlabelled photos or a "
    "keep-set, features (docs/add_labels.md)"
)
SEARCH = 3  # the session with all photos takes as long as so many of a fold's


@dataclass(frozen=True)
class Added:
    """What ``tag`` and ``extend`` did.

    Attributes:
        stage: what was written.
        labels: the new ones.
        difference: largest difference of an old score before and after; ``None`` without old labels.
        seconds: of everything.
        notes: sentences about thresholds.
    """

    stage: StageCheckpoint
    labels: Sequence[str]
    difference: float | None
    seconds: float
    notes: Sequence[str]


def tag(labels: LabelledPhotos, out: Path, recipe: Recipe, extras: Extras, say: Say = print) -> Added:
    """A first tagger of own photos.

    Raises:
        UserError: what can be wrong with labels, photos, backbone and weights, or the file exists.
    """
    versions.check_new(out)
    versions.check_names(labels.classes, str(labels.source))
    labels = _for_training(labels, say)
    return _guarded(lambda: _add(None, out, labels, list(labels.classes), out, recipe, extras, say))


def extend(
    parent: Path, stage: StageCheckpoint, labels: LabelledPhotos, out: Path, recipe: Recipe, extras: Extras, say: Say
) -> Added:
    """A tagger with more labels.

    Args:
        parent: file of the tagger.
        stage: what it holds.
        labels: photos of the new labels.
        out: the new file.
        recipe, extras, say: see :class:`Recipe` and :class:`Extras`; ``say`` takes lines for the user.

    Raises:
        UserError: what can be wrong with labels, photos and tagger, or the file exists.
    """
    versions.check_new(out)
    if stage.task != "multi_label":
        raise UserError(f"{parent} gives one class an image; expected a tagger of many labels, so train one with them")
    check_spellings(stage.classes, labels)
    labels = _for_training(labels, say)
    if extras.keep is not None:
        extras = replace(extras, keep=_for_training(extras.keep, say))
    new = [name for name in labels.classes if name not in stage.classes]
    for name in extras.refine:
        versions.known(stage, name, parent)
        if name not in labels.classes:
            raise UserError(
                f"--refine names {name!r}, but {labels.source} has no photos of it; give photos that show it"
            )
    unused = [name for name in labels.classes if name in stage.classes and name not in extras.refine]
    if unused:
        say(f"known already and left as they are: {', '.join(unused)} (--refine LABEL uses these photos for a label)")
    if not new and not extras.refine:
        raise UserError(
            f"{labels.source} has no label that {parent} lacks; add photos of a new label, or refine a known one with "
            "--refine LABEL"
        )
    return _guarded(lambda: _add(stage, parent, labels, [*new, *extras.refine], out, recipe, extras, say))


def _for_training(labels: LabelledPhotos, say: Say) -> LabelledPhotos:
    """Without the photos that are set aside; what is to be known of the list is said."""
    for note in labels.notes:
        say(f"{labels.source.name}: {note}")
    left = labels.part(test=False)
    if len(left) < len(labels):
        say(f"{len(labels) - len(left)} photos of {labels.source.name} are for testing, so nothing is learnt from them")
    return left


def _guarded(work: Callable[[], Added]) -> Added:
    try:
        return work()
    except KeyboardInterrupt as stop:
        sentence = "stopped; nothing was written, and features computed so far are kept for the next try"
        raise StoppedError(getattr(stop, "number", signal.SIGINT), sentence) from None


def told(added: Added, out: Path) -> list[str]:
    """What was done, in lines."""
    stage, names = added.stage, list(added.labels)
    thresholds = dict(zip(stage.classes, versions.thresholds_of(stage), strict=True))
    lines = [f"{name}: threshold {thresholds[name]:.3f}" for name in names]
    lines += list(added.notes)
    if added.difference is not None:
        lines.append(
            f"scores of the {len(stage.classes) - len(names)} old labels: largest difference {added.difference:g}"
        )
    return [*lines, f"{out}: {len(stage.classes)} labels, {duration(added.seconds)}"]


def _add(
    stage: StageCheckpoint | None,
    parent: Path,
    labels: LabelledPhotos,
    new: Sequence[str],
    out: Path,
    recipe: Recipe,
    extras: Extras,
    say: Say,
) -> Added:
    started = time.monotonic()
    base = base_of(stage, recipe.method)
    by_rows = base.word in ROWS
    statistics = bool(base.own is not None and by_rows and base.own.kept)
    photos = gather(stage, labels, new, extras, statistics, by_rows)
    with tempfile.TemporaryDirectory() as folder:
        backbone = recipe.backbone if stage is None else str(stage.network["backbone"]["name"])
        cfg = config_of(base.word, recipe, labels.source, folder, backbone, stage is None)

        if base.own is not None:
            (start, options), weights = restore_method(cfg, base.own, parent, recipe.overrides), base.own.weights
        else:
            (start, weights), options = fresh_method(cfg, stage, recipe, new), method_options(cfg)
        for line in tier(stage, base, extras, photos, by_rows):
            say(line)
        old = [] if base.own is None else list(base.own.classes)
        sizes = [*([] if base.own is None else base.own.classes_per_session), len(new)]
        fit = Fit() if stage is None else Fit.of(stage.fit)
        table = table_of(photos, old, new, by_rows, [] if stage is None else stage.classes, fit)
        keep_old = bool((photos.old_NO >= 0).any())
        folds = min(FOLDS, photos.own) if by_rows else 1
        share = folds_of(photos.cells_NL, photos.ids, max(folds, 2) if by_rows else FOLDS)
        logits_NL = np.full((len(table), len(new)), np.nan)
        everything = np.arange(len(table))
        features: Features | None = None

        def session(rows: np.ndarray, held: np.ndarray, strength: float | None = None) -> Appended:
            method = again(start)
            if strength is not None and isinstance(method, Ridge):
                method.strength = strength  # searched once
            if isinstance(method, KeptFeatures):
                method.new_only = True  # the old outputs stand beside them
            shown, hidden = table.part(rows, "photos"), table.part(held, "held out")
            if features is not None and by_rows:
                shown, hidden = shown.with_maps(features.part(rows)), hidden.with_maps(features.part(held))
            return append_session(cfg, method, shown, hidden, sizes, keep_old, not by_rows)

        def fits(rows: np.ndarray, few: Features) -> float:
            """Seconds of all sessions, from one with few photos; some need longer for more photos."""
            nonlocal features
            if not by_rows:
                return 0.0
            features = few
            session(rows, rows[-1:], 1.0)  # the first one reads what all of them need
            began = time.monotonic()
            session(rows, rows[-1:], 1.0)
            features = None
            grows = len(table) / len(rows) if base.word in TRAINED else 1.0
            return (time.monotonic() - began) * grows * (folds + SEARCH)

        if start.network.frozen_backbone:
            features = features_with_a_bar(start.network, table, say, fits)
        else:
            say("every photo goes through the network in each epoch; the bar shows the time that is left")

        appended = session(everything, everything[-1:]) if by_rows else None
        strength = appended.method.session_report().get("ridge", {}).get("strength") if appended else None
        with bar("thresholds", folds, by_rows) as show:
            for number in range(folds):
                held = np.flatnonzero(share == number)
                held_out = session(np.flatnonzero(share != number), held, strength)
                logits_NL[held] = held_out.result.logits_NC[:, len(old) :]
                show(number + 1)
        appended = appended or held_out
    judged = np.isfinite(logits_NL).all(1)
    nothing = np.arange(len(table)) >= len(table) - photos.nothing
    found = calibrate(
        logits_NL[judged & ~nothing],
        photos.cells_NL[judged & ~nothing],
        tuple(new),
        logits_NL[judged & nothing],
        0 if stage is None else int(stage.card.get("images", 0)),
    )
    made = stage_of(stage, base, appended, labels, new, photos, found.correction_C2, found.thresholds_C, weights)
    made = replace(made, method_options=options)
    difference = None
    if stage is not None:
        made = replace(made, parents=[file_sha256(parent)] if parent.is_file() else [])
        made = versions.blended(made, extras.refine)
    made = replace(made, state_dict=plain(made.state_dict))
    if stage is None:
        made.build(out)
    else:
        files = [table.files[row] for row in range(min(PROVED, photos.own))]
        difference = largest_difference(stage, made, files, extras.refine)
        if by_rows and difference != 0:
            raise UserError(
                f"{out} is not written: scores of old labels moved by {difference:g} on this machine, and this method "
                "promises 0; try --device cpu, and report it with the tagger's `mlcil info`"
            )
    made.save(out)
    return Added(made, new, difference, time.monotonic() - started, found.notes)


def tier(stage: StageCheckpoint | None, base: Base, extras: Extras, photos: Photos, by_rows: bool) -> list[str]:
    """What is known of old photos, what it is worth, and what stands for photos without the new labels."""
    lines = [f"{photos.own} photos, method {base.word}"]
    if stage is not None:
        kept = {} if base.own is None else base.own.kept
        parts = [f"{kind} ({bytes_text(count)})" for kind, count in kept.items() if count]
        parts += ["a keep-set"] if extras.keep is not None else []
        parts += ["unlabelled photos"] if extras.unlabelled else []
        lines.append(f"of old photos there is: {', '.join(parts) or 'nothing'}")
        lines.append(LITTLE if (photos.cells_NL[: photos.own] == 0).any(0).all() else MUCH)
        lines.append(
            "old labels: their scores stay the same to the bit"
            if by_rows
            else "old labels: this method changes their scores; compare with `mlcil check`"
        )
    return [*lines, *photos.notes]


def largest_difference(
    before: StageCheckpoint, after: StageCheckpoint, files: Sequence[Path], without: Sequence[str] = ()
) -> float:
    """Of the scores of old labels on photos, as ``mlcil predict`` computes them, but for some labels."""
    one, two = (tagger_of(stage) for stage in (before, after))
    old = [name for name in before.classes if name not in without]
    left, right = ([stage.classes.index(name) for name in old] for stage in (before, after))
    found = 0.0
    for low in range(0, len(files), BATCH):
        images = np.stack([decode(file, one.image_size, one.fit) for file in files[low : low + BATCH]])
        found = max(found, float(np.abs(one.scores(images)[:, left] - two.scores(images)[:, right]).max(initial=0)))
    return found
