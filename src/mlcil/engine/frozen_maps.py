"""The maps of a frozen backbone, computed once for every image of a run.

Where the backbone keeps its weights and the training images are not augmented, an image has the same maps in every
epoch of every session, for student and teacher, memory and evaluation. So they are computed in one pass before the
first session and take the images' place from then on; what is left to compute is the head. They are float32 whatever
the precision of the run, and differ from those of a training batch by rounding.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from mlcil.datasets.table import ImageTable
from mlcil.engine.data import Data, log
from mlcil.engine.run import Run
from mlcil.models.backbones import grid_of
from mlcil.models.numerics import autocast


def keep_frozen_maps(run: Run, data: Data) -> None:
    """Give the scenario's tables the maps of their images, where that is possible and they fit into the memory.

    Not with ``deterministic=True``, in which every pass is computed as it stands, and not in several processes.
    """
    network, scenario = run.method.network, run.scenario
    wanted = network.frozen_backbone and not run.transform.steps and not run.method.needs_images
    if not wanted or run.settings.deterministic or get_world_size() > 1 or _changes_batches(run):
        return
    tables = (scenario.train, scenario.test)
    shape = (int(network.backbone.out_channels), *grid_of(network.backbone, run.image_size))  # type: ignore[arg-type]
    gigabytes = 4e-9 * sum(map(len, tables)) * float(np.prod(shape))
    limit = min(run.settings.frozen_maps_gb, _free_gigabytes() / 2)
    if gigabytes > limit:
        if run.settings.frozen_maps_gb:
            sentence = f"its maps would need {gigabytes:.1f} GB, more than frozen_maps_gb or half of the free memory"
            log(f"frozen backbone: {sentence}, so they are computed in every epoch")
        return
    started = time.monotonic()
    scenario.train, scenario.test = (table.with_maps(_maps_of(run, data, table, shape)) for table in tables)
    data.close()  # nothing is left to read
    seconds = time.monotonic() - started
    log(f"frozen backbone: maps of {sum(map(len, tables))} images in memory, {gigabytes:.2f} GB, {seconds:.0f} s")


def _maps_of(run: Run, data: Data, table: ImageTable, shape: tuple[int, ...]) -> np.ndarray:
    """In the table's order, so that a map does not depend on anything else of the run."""
    maps = np.zeros((len(table), *shape), np.float32)
    loader = data.plain_loader(data.plain_view(table, table.readable_rows()))
    method = run.method
    device = next(method.parameters()).device
    training = method.training
    method.eval()
    with torch.no_grad(), autocast(device, torch.float32):
        for batch in loader:
            images = method.data_preprocessor(batch)
            rows = images["rows"].cpu().numpy()
            maps[rows] = method.network.backbone(images["inputs"])[-1].float().cpu().numpy()
    method.train(training)
    return maps


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
