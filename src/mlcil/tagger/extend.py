"""Labels added to a tagger, and a first tagger: one session through the ordinary loop, thresholds, one file.

By default the backbone stays as it is and the new labels get rows of their own beside the old outputs, which nothing
touches: their scores stay the same to the bit, and this is looked at before the file is said to be good. Thresholds and
calibration of the new labels come from photos that were held out: the session is run once for each fold without its
photos, and once with all of them.

Legend: N photos of the session, L its new labels, C all labels.
"""

from __future__ import annotations

import copy
import hashlib
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

import mlcil
from mlcil.datasets.feature_store import BATCH, Features, FeatureStore, Kind, features_of
from mlcil.datasets.labels import LabelledPhotos, fold
from mlcil.datasets.table import ImageTable
from mlcil.engine.append import Appended, append_session, recipe_words, state_of
from mlcil.engine.build import build_method, method_options, restore_method
from mlcil.engine.checkpoint import StageCheckpoint, plain
from mlcil.engine.config import load_config
from mlcil.errors import StoppedError, UserError
from mlcil.images import Fit, decode
from mlcil.inference.features import feature_engine
from mlcil.interop.pretrained import file_sha256, load_pretrained
from mlcil.methods.base import Method
from mlcil.methods.ridge import Ridge
from mlcil.models.composed import COMPOSED
from mlcil.models.network import IncrementalNetwork
from mlcil.reporting.formats import bytes_text, duration
from mlcil.system.bar import bar
from mlcil.tagger import versions
from mlcil.tagger.nothing import files_of_nothing
from mlcil.tagger.stage import tagger_of
from mlcil.tagger.thresholds import calibrate

Say = Callable[[str], None]
#: methods that keep the backbone and fit rows of their own, by their name in a config; the first is the default
ROWS = ("ridge", "frozen_rows", "kept_features")
#: of these, those that fit all rows anew: the old outputs stand beside them, and of the new fit the new rows are used
REFITTED = ("kept_features",)
FOLDS = 5
CHUNK = 64  # photos between two steps of the bar
PROVED = 32  # photos on which old scores are compared
LITE0 = "tf_efficientnet_lite0"
#: photos are not augmented, so that each goes through the backbone once; few of them need no processes to read them
PLAIN = (
    "train_transform.cutout=0.0",
    "train_transform.randaugment=False",
    "train_dataloader.num_workers=0",
    "test_dataloader.num_workers=0",
    "image_cache.enabled=False",
    "pretrained=None",
)


@dataclass(frozen=True)
class Extras:
    """What else there is beside the photos of the new labels.

    Attributes:
        keep: photos with old labels.
        unlabelled: files that nobody has looked at.
        refine: labels of the tagger that these photos say more of.
    """

    keep: LabelledPhotos | None = None
    unlabelled: Sequence[Path] = ()
    refine: Sequence[str] = ()


@dataclass(frozen=True)
class Recipe:
    """How the session is trained.

    Attributes:
        method: word of a config; ``None`` is the tagger's own method of rows, or the default one.
        overrides: ``key=value`` words.
        backbone: name, for a first tagger.
        weights: of that backbone.
    """

    method: str | None = None
    overrides: Sequence[str] = ()
    backbone: str = LITE0
    weights: str | None = None


@dataclass(eq=False)
class Photos:
    """What the session learns from: photos, then unlabelled ones, the keep-set, and images of nothing.

    Attributes:
        files, ids: N images.
        cells_NL: what is known of the new labels, with what counts as absent.
        old_NO: of the old ones, as far as they are trained on.
        own: how many are the user's photos; the rest follows behind them.
        nothing: how many at the end are images of nothing.
    """

    files: list[Path]
    ids: list[str]
    cells_NL: np.ndarray
    old_NO: np.ndarray
    own: int
    nothing: int = 0
    notes: list[str] = field(default_factory=list)


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


def _guarded(work: Callable[[], Added]) -> Added:
    try:
        return work()
    except StoppedError as stop:
        sentence = "stopped; nothing was written, and features computed so far are kept for the next try"
        raise StoppedError(stop.number, sentence) from None


def check_spellings(classes: Sequence[str], labels: LabelledPhotos) -> None:
    """Refuse a label that the tagger has under another spelling.

    Raises:
        UserError: names both.
    """
    spelt = {fold(name): name for name in classes}
    for name in labels.classes:
        there = spelt.get(fold(name), name)
        if there != name:
            raise UserError(
                f"{labels.source} has the label {name!r}, and the tagger has it as {there!r}; write it the same way, "
                "or rename it with `mlcil rename` if they differ"
            )


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


# -- what is learnt from ---------------------------------------------------------------------------------------


def gather(
    stage: StageCheckpoint | None,
    labels: LabelledPhotos,
    new: Sequence[str],
    extras: Extras,
    statistics: bool,
    by_rows: bool,
) -> Photos:
    """Photos of the session with their cells, and what stands for photos without the new labels.

    Args:
        stage: the tagger, or ``None``.
        labels: the user's photos.
        new: L labels to learn.
        extras: see :class:`Extras`.
        statistics: the method has statistics of earlier photos, which stand for photos without a new label.
        by_rows: old labels are not trained.

    Raises:
        UserError: a label has no photo, nothing tells it from others, or the keep-set has no old label.
    """
    columns = [labels.classes.index(name) for name in new]
    cells_NL = labels.cells_NC[:, columns]
    rows = np.flatnonzero((cells_NL >= 0).any(1))
    cells_NL = cells_NL[rows]
    old = [] if stage is None else list(stage.classes)
    files, ids = [labels.files[row] for row in rows], [labels.ids[row] for row in rows]
    found = Photos(files, ids, cells_NL, np.full((len(rows), len(old)), -1, np.int8), len(rows))
    for name, present in zip(new, (cells_NL == 1).sum(0), strict=True):
        if not present:
            raise UserError(f"{labels.source}: no photo shows {name!r}; expected some, so add photos or leave it out")
    alone = [name for name, absent in zip(new, (cells_NL == 0).sum(0), strict=True) if not absent]
    sources = ["what is kept of the photos of earlier sessions"] if statistics else []
    if extras.unlabelled:
        sources.append(f"{len(extras.unlabelled)} unlabelled photos")
        _behind(found, extras.unlabelled, "unlabelled", np.zeros((len(extras.unlabelled), len(new)), np.int8))
    if extras.keep is not None:
        _add_keep(found, extras.keep, old, new, by_rows)
        sources.append(f"{len(extras.keep)} photos of the keep-set")
    if alone:
        if not sources:
            raise UserError(
                f"{labels.source}: no photo is known to lack {', '.join(map(repr, alone[:3]))}"
                f"{f' and {len(alone) - 3} more' if len(alone) > 3 else ''}, so there is nothing to tell it from; say "
                "what was looked for on every photo with --reviewed all, or give other photos with --unlabelled FOLDER"
            )
        found.notes.append(f"no photo is known to lack {', '.join(alone)}: taken instead are {' and '.join(sources)}")
    elif sources:
        found.notes.append(f"photos without the new labels: those of {labels.source.name}, and {' and '.join(sources)}")
    blank = files_of_nothing()
    _behind(found, blank, "nothing", np.zeros((len(blank), len(new)), np.int8))
    found.nothing = len(blank)
    return found


def _behind(found: Photos, files: Sequence[Path], word: str, cells_NL: np.ndarray) -> None:
    there = {file.absolute() for file in found.files}
    rows = [row for row, file in enumerate(files) if file.absolute() not in there]
    found.files += [files[row] for row in rows]
    found.ids += [f"{word}/{files[row]}" for row in rows]
    found.cells_NL = np.concatenate([found.cells_NL, cells_NL[rows]])
    nothing = np.full((len(rows), found.old_NO.shape[1]), -1, np.int8)
    found.old_NO = np.concatenate([found.old_NO, nothing])


def _add_keep(found: Photos, keep: LabelledPhotos, old: Sequence[str], new: Sequence[str], by_rows: bool) -> None:
    shared = [name for name in keep.classes if name in old]
    if not shared:
        raise UserError(
            f"the keep-set {keep.source} has none of the tagger's {len(old)} labels; expected photos with old labels, "
            "so give others or leave --keep out"
        )
    cells_NL = np.zeros((len(keep), len(new)), np.int8)
    for column, name in enumerate(new):
        if name in keep.classes:
            cells_NL[:, column] = keep.cells_NC[:, keep.classes.index(name)]
    before = len(found.files)
    _behind(found, keep.files, "keep", cells_NL)
    if not by_rows:
        place = {file: row for row, file in enumerate(keep.files)}
        for row in range(before, len(found.files)):
            for name in shared:
                cell = keep.cells_NC[place[found.files[row]], keep.classes.index(name)]
                found.old_NO[row, old.index(name)] = cell


def folds_of(cells_NL: np.ndarray, ids: Sequence[str], folds: int = FOLDS) -> np.ndarray:
    """A fold for each photo (N,), so that every label's photos are spread; the names decide, not the order."""
    rarest = np.argsort((cells_NL == 1).sum(0), kind="stable")
    keys = []
    for row, name in enumerate(ids):
        shows = next((int(place) for place, column in enumerate(rarest) if cells_NL[row, column] == 1), len(rarest))
        keys.append((shows, hashlib.sha256(name.encode()).hexdigest(), row))
    fold_N = np.empty(len(ids), np.int64)
    fold_N[[row for *_, row in sorted(keys)]] = np.arange(len(ids)) % folds
    return fold_N


# -- the session -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Base:
    """What the session starts from.

    Attributes:
        word: the method, as a config calls it.
        own: stage checkpoint that the method goes on from, or ``None`` to start with the new labels alone.
        beside: finished outputs that stand before its own, or ``None``.
    """

    word: str
    own: StageCheckpoint | None
    beside: StageCheckpoint | None


def base_of(stage: StageCheckpoint | None, method: str | None) -> Base:
    """Which part of a tagger the session goes on from.

    Rows go on from rows of the same method; any other output stays as it is beside them. Another method goes on from
    the whole network.
    """
    if stage is None or (method is not None and method not in ROWS):
        return Base(method or ROWS[0], stage, None)
    found = word_of(stage.method)
    word = method or found or ROWS[0]
    if found != word:
        return Base(word, None, stage)
    finished, own = (None, stage) if stage.network["head"]["type"] != COMPOSED else versions.apart(stage)
    return Base(word, own, stage if word in REFITTED else finished)


def word_of(name: str) -> str | None:
    """The word of a method of rows from the name of its class, or ``None`` for another method."""
    return next((word for word in ROWS if word.replace("_", "") == name.lower()), None)


def _config(word: str, recipe: Recipe, source: Path, folder: str, backbone: str, fresh: bool) -> Any:
    words = [f"data={source}", "protocol=B0-C1", *recipe_words(folder)]
    if backbone == LITE0:
        words.append("backbone=lite0")
    if word in ROWS:
        words += PLAIN
        if fresh and backbone != LITE0:
            words += ["network.frozen_backbone=True", f"network.backbone.name={backbone!r}"]
    return load_config(word, [*words, *recipe.overrides])


def _fresh(cfg: Any, stage: StageCheckpoint | None, recipe: Recipe, classes: Sequence[str]) -> tuple[Method, Any]:
    """A method without outputs: on the tagger's backbone, or on a pretrained one; and where its weights come from."""
    if stage is None:
        method = build_method(cfg)
        source = recipe.weights or default_weights(recipe.backbone)
        return method, load_pretrained(method.network.backbone, source, classes, allow_leaky_weights=True)
    shape = {key: value for key, value in stage.network.items() if key != "head"}
    method = build_method(cfg, **{**shape, "frozen_backbone": True})
    weights = {k.removeprefix("backbone."): v for k, v in stage.state_dict.items() if k.startswith("backbone.")}
    method.network.backbone.load_state_dict(weights)
    return method, stage.weights


def default_weights(backbone: str) -> str:
    """Weights that come as a package.

    Raises:
        UserError: none do for that backbone.
    """
    if backbone != LITE0:
        raise UserError(
            f"backbone {backbone!r} needs its weights; expected --weights FILE with a state dict of that timm model, "
            f"or leave --backbone out for {LITE0}"
        )
    return "package:efficientnet-lite0"


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
        cfg = _config(base.word, recipe, labels.source, folder, backbone, stage is None)

        if base.own is not None:
            start, weights = restore_method(cfg, base.own, parent), base.own.weights
        else:
            start, weights = _fresh(cfg, stage, recipe, new)
        for line in tier(stage, base, extras, photos, by_rows):
            say(line)
        old = [] if base.own is None else list(base.own.classes)
        sizes = [*([] if base.own is None else base.own.classes_per_session), len(new)]
        fit = Fit() if stage is None else Fit.of(stage.fit)
        table = _table(photos, old, new, by_rows, [] if stage is None else stage.classes, fit)
        features = None
        if start.network.frozen_backbone:
            features = _features(start.network, table, say)
        else:
            say("every photo goes through the network in each epoch; the bar shows the time that is left")
        keep_old = bool((photos.old_NO >= 0).any())
        folds = min(FOLDS, photos.own) if by_rows else 1
        share = folds_of(photos.cells_NL, photos.ids, max(folds, 2) if by_rows else FOLDS)
        logits_NL = np.full((len(table), len(new)), np.nan)
        everything = np.arange(len(table))

        def session(rows: np.ndarray, held: np.ndarray, strength: float | None = None) -> Appended:
            method = _again(start)
            if strength is not None and isinstance(method, Ridge):
                method.strength = strength  # searched once
            shown, hidden = table.part(rows, "photos"), table.part(held, "held out")
            if features is not None and by_rows:
                shown, hidden = shown.with_maps(features.part(rows)), hidden.with_maps(features.part(held))
            return append_session(cfg, method, shown, hidden, sizes, keep_old, not by_rows)

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
    made = _stage(stage, base, appended, labels, new, photos, found.correction_C2, found.thresholds_C, weights)
    made = replace(made, method_options={**method_options(cfg), **(made.method_options or {})})
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
        lines.append(
            "old labels: their scores stay the same to the bit"
            if by_rows
            else "old labels: this method changes their scores; compare with `mlcil check`"
        )
    return [*lines, *photos.notes]


def _table(
    photos: Photos, old: Sequence[str], new: Sequence[str], by_rows: bool, all_old: Sequence[str], fit: Fit
) -> ImageTable:
    """Columns of the method's own old labels and the new ones."""
    where = [list(all_old).index(name) for name in old]
    labels_NC = np.concatenate([photos.old_NO[:, where], photos.cells_NL], 1).astype(np.int8)
    names = [*old, *(versions.more(name) if name in old else name for name in new)]
    return ImageTable(
        "photos", tuple(names), tuple(photos.ids), tuple(photos.files), labels_NC, labels_NC >= 0, fit=fit
    )


def _features(network: IncrementalNetwork, table: ImageTable, say: Say) -> Features:
    """Features of the table's images, with an estimate first and a bar; the store keeps them for the next try."""
    store, engine = FeatureStore(), feature_engine(network, "auto", say)  # a run's, which finds them then
    kind: Kind = "pooled" if getattr(network.head, "pools", False) else "maps"
    rows = table.readable_rows()
    chunks = [rows[low : low + CHUNK] for low in range(0, len(rows), CHUNK)]
    began = time.monotonic()
    first = features_of(engine, table, store, kind, chunks[0][: CHUNK // 4])
    each = (time.monotonic() - began) / max(first.computed, 1)
    most = f"up to {duration(each * len(rows))}" if first.computed else "seconds, since they are in the store"
    say(f"features of {len(rows)} photos and images of nothing: {most}")
    with bar("features", len(rows)) as show:
        for number, chunk in enumerate(chunks, 1):
            features_of(engine, table, store, kind, chunk)
            show(min(number * CHUNK, len(rows)))
    return features_of(engine, table, store, kind, rows).as_maps()


def _again(method: Method) -> Method:
    """A method in the same state, which shares a frozen backbone with it."""
    network = method.network
    parts = (network.backbone, network._last_maps) if network.frozen_backbone else ()
    return copy.deepcopy(method, {id(part): part for part in parts})


def _stage(
    stage: StageCheckpoint | None,
    base: Base,
    appended: Appended,
    labels: LabelledPhotos,
    new: Sequence[str],
    photos: Photos,
    correction_L2: np.ndarray,
    thresholds_L: np.ndarray,
    weights: Any,
) -> StageCheckpoint:
    """The checkpoint with all labels: what was there stays."""
    state = state_of(appended)
    if "rows" in state["method_state"]:  # of this session's table, which no other session has
        state["method_state"]["rows"] = torch.full_like(state["method_state"]["rows"], -1)
    own_old = [] if base.own is None else list(base.own.classes)
    of_method = state["logit_correction"]
    lines_L2 = torch.tensor(correction_L2, dtype=torch.float32)
    if of_method is not None:  # the held-out logits came with the method's own
        of_method = of_method[len(own_old) :].float().cpu()
        lines_L2 = torch.stack([lines_L2[:, 0] * of_method[:, 0], lines_L2[:, 0] * of_method[:, 1] + lines_L2[:, 1]], 1)
    correction_C2 = lines_L2 if base.own is None else torch.cat([versions.correction_of(base.own), lines_L2])
    thresholds = [*([] if base.own is None else versions.thresholds_of(base.own)), *map(float, thresholds_L)]
    seen = {
        name: {
            "present": int((photos.cells_NL[: photos.own, c] == 1).sum()),
            "absent": int((photos.cells_NL[: photos.own, c] == 0).sum()),
        }
        for c, name in enumerate(new)
    }
    before: dict[str, Any] = {} if stage is None else stage.card
    card = {
        **before,
        "images": int(before.get("images", 0)) + photos.own,
        "made": datetime.now().astimezone().isoformat(timespec="seconds"),
        "labels": {**before.get("labels", {}), **seen},
    }
    own = StageCheckpoint(
        run=f"{labels.source.name}",
        session=len(state["classes_per_session"]) - 1,
        classes=[
            *own_old,
            *(versions.more(name) if stage is not None and name in stage.classes else name for name in new),
        ],
        task="multi_label",
        fit=asdict(Fit()) if stage is None else stage.fit,
        thresholds=thresholds,
        card=card,
        weights=weights,
        **{**plain(state), "logit_correction": correction_C2},
    )
    if base.beside is None:
        return own
    behind = [column for column, name in enumerate(own.classes) if name not in base.beside.classes]
    parts = [(base.beside, list(range(len(base.beside.classes)))), (own, behind)]
    names = ("method", "method_state", "method_options", "kept", "card", "run")
    return versions.side_by_side(
        parts, {"mlcil_version": mlcil.__version__, **{name: getattr(own, name) for name in names}}
    )


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
