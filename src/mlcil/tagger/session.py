"""The session that adds labels: what it starts from, and the checkpoint that it leaves.

Legend: L new labels, C all labels.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

import mlcil
from mlcil.datasets.feature_store import Features, FeatureStore, Kind, features_of
from mlcil.datasets.labels import LabelledPhotos
from mlcil.datasets.table import ImageTable
from mlcil.engine.append import Appended, recipe_words, state_of
from mlcil.engine.build import build_method
from mlcil.engine.checkpoint import StageCheckpoint, plain
from mlcil.engine.config import load_config
from mlcil.errors import UserError
from mlcil.images import Fit
from mlcil.inference.features import feature_engine
from mlcil.interop.pretrained import load_pretrained
from mlcil.methods.base import Method
from mlcil.models.composed import COMPOSED
from mlcil.models.network import IncrementalNetwork
from mlcil.models.onnx_backbone import SUFFIX
from mlcil.reporting.formats import duration
from mlcil.system.bar import bar
from mlcil.tagger import versions
from mlcil.tagger.photos import Photos

Say = Callable[[str], None]
#: methods that keep the backbone and fit rows of their own, by their name in a config; the first is the default
ROWS = ("ridge", "frozen_rows", "kept_features")
#: of these, those that fit all rows anew: the old outputs stand beside them, and of the new fit the new rows are used
REFITTED = ("kept_features",)
#: and those that go through the photos again and again
TRAINED = ("frozen_rows",)
CHUNK = 64  # photos between two steps of the bar
PROBED = 16  # photos that the estimate of the seconds comes from
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


def config_of(word: str, recipe: Recipe, source: Path, folder: str, backbone: str, fresh: bool) -> Any:
    """The config that a session runs by: its recipe, and of a first tagger its network."""
    words = [f"data={source}", "protocol=B0-C1", *recipe_words(folder)]
    if backbone == LITE0:
        words.append("backbone=lite0")
    if word in ROWS:
        words += PLAIN
        if fresh and backbone != LITE0:
            words += ["network.frozen_backbone=True", f"network.backbone.name={backbone!r}"]
    return load_config(word, [*words, *recipe.overrides])


def fresh_method(cfg: Any, stage: StageCheckpoint | None, recipe: Recipe, classes: Sequence[str]) -> tuple[Method, Any]:
    """A method without outputs: on the tagger's backbone, or on a pretrained one; and where its weights come from."""
    if stage is None:
        method = build_method(cfg)
        source = recipe.weights or default_weights(recipe.backbone)
        if recipe.weights and recipe.backbone.lower().endswith(SUFFIX):
            raise UserError(f"--weights does not go with {recipe.backbone}, which holds its own; leave it out")
        return method, load_pretrained(method.network.backbone, source, classes, allow_leaky_weights=True)
    shape = {key: value for key, value in stage.network.items() if key != "head"}
    method = build_method(cfg, **{**shape, "frozen_backbone": True})
    weights = {k.removeprefix("backbone."): v for k, v in stage.state_dict.items() if k.startswith("backbone.")}
    method.network.backbone.load_state_dict(weights)
    return method, stage.weights


def default_weights(backbone: str) -> str:
    """Weights that come as a package, or in the backbone's own file.

    Raises:
        UserError: none do for that backbone.
    """
    if backbone.lower().endswith(SUFFIX):
        return backbone
    if backbone != LITE0:
        raise UserError(
            f"backbone {backbone!r} needs its weights; expected --weights FILE with a state dict of that timm model, "
            f"or leave --backbone out for {LITE0}"
        )
    return "package:efficientnet-lite0"


def features_with_a_bar(
    network: IncrementalNetwork, table: ImageTable, say: Say, fits: Callable[[np.ndarray, Features], float]
) -> Features:
    """Features of the table's images, with an estimate first and a bar; the store keeps them for the next try.

    Args:
        network: with a frozen backbone.
        table: the images.
        say: takes the estimate.
        fits: from rows and their features an estimate of the seconds that follow.
    """
    store, engine = FeatureStore(), feature_engine(network, "auto", say)  # a run's, which finds them then
    kind: Kind = "pooled" if getattr(network.head, "pools", False) else "maps"
    rows = table.readable_rows()
    few = rows[:: max(len(rows) // PROBED, 1)][:PROBED]
    began = time.monotonic()
    first = features_of(engine, table, store, kind, few)
    seconds = (time.monotonic() - began) / max(first.computed, 1) * len(rows) if first.computed else 0.0
    told = f"take up to {duration(seconds)}" if first.computed else "are in the store"
    whole = duration(seconds + fits(few, first.as_maps()))
    say(f"features of {len(rows)} photos and images of nothing {told}, with all that follows about {whole}")
    with bar("features", len(rows)) as show:
        for low in range(0, len(rows), CHUNK):
            features_of(engine, table, store, kind, rows[low : low + CHUNK])
            show(min(low + CHUNK, len(rows)))
    return features_of(engine, table, store, kind, rows).as_maps()


def again(method: Method) -> Method:
    """A method in the same state, which shares a frozen backbone with it."""
    network = method.network
    parts = (network.backbone, network._last_maps) if network.frozen_backbone else ()
    return copy.deepcopy(method, {id(part): part for part in parts})


def stage_of(
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
