"""The features of a frozen backbone, computed once for every image.

Where the backbone keeps its weights and the training images are not augmented, an image has the same maps in every
epoch of every session, for student and teacher, memory and evaluation. So they are taken from the store, or computed
before the first session, and stand in for the images from then on; what is left to compute is the head. A head that
takes their mean gets the means alone. They are float32 whatever the precision of the run, and differ from those of a
training batch by rounding.
"""

from __future__ import annotations

import math
import time
from pathlib import Path

from mmengine.dist import barrier, get_dist_info
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from mlcil.datasets.feature_store import Features, FeatureStore, Kind, features_of
from mlcil.datasets.table import ImageTable
from mlcil.engine.data import Data, log
from mlcil.engine.run import Run
from mlcil.inference.features import feature_engine


def keep_frozen_maps(run: Run, data: Data) -> None:
    """Give the scenario's tables the features of their images, where that is possible.

    Not with ``deterministic=True``, in which every pass is computed as it stands. Each of several processes computes
    its share of what the store lacks.
    """
    network, scenario = run.method.network, run.scenario
    wanted = run.features.enabled and network.frozen_backbone and not run.transform.steps
    if not wanted or run.method.needs_images or run.settings.deterministic or _changes_batches(run):
        return
    if scenario.train.maps is not None and scenario.test.maps is not None:  # they came with them
        return
    engine = feature_engine(network, run.settings.engine, log)
    kind: Kind = "pooled" if getattr(network.head, "pools", False) else "maps"
    shape = engine.shape if kind == "maps" else engine.shape[:1]
    tables = (scenario.train, scenario.test)
    images = sum(len(table.readable_rows()) for table in tables)
    gigabytes = 4e-9 * images * math.prod(shape)
    store: FeatureStore | None = FeatureStore.of(run.features)
    if not FeatureStore.of(run.features).takes(images, shape):
        store = None
        if gigabytes > _free_gigabytes() / 2:
            reason = f"{gigabytes:.1f} GB are more than feature_store.limit_gb and half of the free memory"
            log(f"frozen backbone: {reason}, so its maps are computed in every epoch")
            return
    started = time.monotonic()

    def features(table: ImageTable) -> Features:
        rank, processes = get_dist_info()
        rows, workers = table.readable_rows(), run.test_loader.num_workers
        if processes > 1 and store is not None:
            features_of(engine, table, store, kind, rows[rank::processes], workers, log)
            barrier()
        return features_of(engine, table, store, kind, rows, workers, log)

    found = [features(table) for table in tables]
    scenario.train, scenario.test = (
        table.with_maps(values.as_maps()) for table, values in zip(tables, found, strict=True)
    )
    data.close()  # nothing is left to read
    where = "in memory" if store is None else f"in {store.folder}"
    text = f"{kind if kind == 'maps' else 'pooled maps'} of {images} images {where}"
    computed = sum(values.computed for values in found)
    text += f", {gigabytes:.2f} GB, {computed} computed now by {engine.name.split()[0]}"
    log(f"frozen backbone: {text}, {time.monotonic() - started:.0f} s")


def _changes_batches(run: Run) -> bool:
    """Whether a hook of the user sees the training batches, which it would expect to be images."""
    hooks = [HOOKS.get(section["type"]) for section in run.hooks]
    return any(hook.before_train_iter is not Hook.before_train_iter for hook in hooks)  # type: ignore[union-attr]


def _free_gigabytes(meminfo: Path = Path("/proc/meminfo")) -> float:
    """Memory that the machine can give, what it holds of files included; all of it where that cannot be asked."""
    try:
        lines = (line.split() for line in meminfo.read_text().splitlines())
        return next(1.024e-6 * int(words[1]) for words in lines if words[:1] == ["MemAvailable:"])
    except (OSError, StopIteration, ValueError, IndexError):
        return float("inf")
